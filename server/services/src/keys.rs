//! The master keys and what is derived from them: sealing of stored secrets, the audit chain, webhook secrets.

use base64::{Engine, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use domain::BotId;
use rand::Rng;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::Error;

/// What `BOTDECK_SECRET_KEY` must look like.
pub const EXPECTED_KEY: &str =
    "32 random bytes in base64 (openssl rand -base64 32); several, the current one first, separated by commas";

const NONCE: usize = 24;

struct Key {
    /// Eight hex digits that name the key beside what it sealed; they say nothing about it.
    id: String,
    master: Zeroizing<[u8; 32]>,
}

/// The current master key and those before it, which can still open what they sealed.
pub struct KeyRing(Vec<Key>);

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl KeyRing {
    /// Reads a list of keys, the current one first. Fails with [`EXPECTED_KEY`].
    pub fn parse(text: &SecretString) -> Result<Self, domain::Invalid> {
        let keys = text
            .expose_secret()
            .split([',', '\n', ' '])
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| {
                let bytes = Zeroizing::new(STANDARD.decode(part).ok()?);
                let master = Zeroizing::new(<[u8; 32]>::try_from(bytes.as_slice()).ok()?);
                let id = blake3::derive_key("botdeck 2026 key id", master.as_slice());
                Some(Key {
                    id: blake3::Hash::from_bytes(id).to_hex()[..8].to_owned(),
                    master,
                })
            })
            .collect::<Option<Vec<_>>>();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(Self(keys)),
            _ => Err(domain::Invalid(EXPECTED_KEY)),
        }
    }

    /// A fresh key in the form that [`KeyRing::parse`] reads.
    pub fn generate() -> SecretString {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        rand::rng().fill(bytes.as_mut_slice());
        STANDARD.encode(bytes.as_slice()).into()
    }

    fn current(&self) -> &Key {
        // `parse` lets no empty ring through.
        &self.0[0]
    }

    pub fn current_id(&self) -> &str {
        &self.current().id
    }

    fn find(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Encrypts with the current key. `bound_to` must be given again to open it, so that a stored secret cannot be moved to
    /// another row. Returns nonce and ciphertext, and the key's id.
    pub fn seal(&self, secret: &SecretString, bound_to: &[u8]) -> Result<(Vec<u8>, String), Error> {
        let key = self.current();
        let mut nonce = [0_u8; NONCE];
        rand::rng().fill(&mut nonce);
        let payload = Payload {
            msg: secret.expose_secret().as_bytes(),
            aad: bound_to,
        };
        let sealed = cipher(key)
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| Error::Secret("it could not be sealed"))?;
        Ok(([&nonce[..], &sealed].concat(), key.id.clone()))
    }

    pub fn open(&self, sealed: &[u8], key_id: &str, bound_to: &[u8]) -> Result<SecretString, Error> {
        let key = self.find(key_id).ok_or(Error::Secret(
            "BOTDECK_SECRET_KEY does not hold the key it was sealed with",
        ))?;
        let (nonce, body) = sealed.split_at_checked(NONCE).ok_or(Error::Secret("it is too short"))?;
        let nonce = <[u8; NONCE]>::try_from(nonce).map_err(|_| Error::Secret("it is too short"))?;
        let plain = cipher(key)
            .decrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: body,
                    aad: bound_to,
                },
            )
            .map_err(|_| Error::Secret("it was changed, or belongs to another row"))?;
        let text = String::from_utf8(plain).map_err(|_| Error::Secret("it is not text"))?;
        Ok(text.into())
    }

    /// The key of the audit chain that goes with the master key `id`.
    pub(crate) fn audit_key(&self, id: &str) -> Option<[u8; 32]> {
        Some(blake3::derive_key(
            "botdeck 2026 audit chain",
            self.find(id)?.master.as_slice(),
        ))
    }

    /// The webhook secret of a bot: 64 hex digits, known to every replica without being stored.
    pub fn webhook_secret(&self, bot: BotId) -> SecretString {
        let key = blake3::derive_key("botdeck 2026 webhook secret", self.current().master.as_slice());
        blake3::keyed_hash(&key, bot.0.as_bytes()).to_hex().to_string().into()
    }
}

fn cipher(key: &Key) -> XChaCha20Poly1305 {
    let sealing = Zeroizing::new(blake3::derive_key("botdeck 2026 token sealing", key.master.as_slice()));
    XChaCha20Poly1305::new(&(*sealing).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_with_its_key_and_in_its_row() {
        let (old, new) = (KeyRing::generate(), KeyRing::generate());
        let ring = KeyRing::parse(&old).unwrap();
        let (sealed, id) = ring.seal(&"123:secret".to_owned().into(), b"row 1").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let rotated = KeyRing::parse(&format!("{},{}", new.expose_secret(), old.expose_secret()).into()).unwrap();
        assert_ne!(rotated.current_id(), id);
        assert_eq!(
            rotated.open(&sealed, &id, b"row 1").unwrap().expose_secret(),
            "123:secret"
        );
        assert!(rotated.open(&sealed, &id, b"row 2").is_err());
        assert!(KeyRing::parse(&new).unwrap().open(&sealed, &id, b"row 1").is_err());
        let mut edited = sealed;
        edited[30] ^= 1;
        assert!(ring.open(&edited, &id, b"row 1").is_err());
    }

    #[test]
    fn keys_must_be_32_bytes_and_never_show() {
        for bad in ["", "short", "AAAA", "not base64!"] {
            assert!(KeyRing::parse(&bad.to_owned().into()).is_err(), "{bad} was taken");
        }
        let key = KeyRing::generate();
        assert!(!format!("{:?}", KeyRing::parse(&key).unwrap()).contains(key.expose_secret()));
    }
}
