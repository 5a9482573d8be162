-- Sessions are kept under the hash of their id, so that who reads this table cannot take one over, and have a longest life.
-- (A replica of the release before looks for the id itself: whoever comes to it signs in again.)
UPDATE sessions SET id = encode(sha256(convert_to(id, 'UTF8')), 'hex');
ALTER TABLE sessions ADD COLUMN created_at timestamptz NOT NULL DEFAULT now();
