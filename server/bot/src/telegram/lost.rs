//! Which id a message may have that was sent, but whose id was never learnt.

use std::collections::HashSet;

use services::KnownIds;

/// Each candidate is one edit, which takes its turn in the pace of the chat: what is not found after these is sent anew.
const CANDIDATES: usize = 20;
/// How far beyond the highest id that is known: so many others of the bot may be lost, or not noted yet, at the same moment.
const BEYOND: i64 = 8;
/// Where each chat numbers for itself, ids that are unknown are few.
const BEYOND_IN_CHAT: i64 = 3;
const CANDIDATES_IN_CHAT: usize = 6;

/// Likeliest first. Telegram numbers the messages of all private chats and small groups of a bot in one row, so first come ids
/// that no message we know of has, in whatever chat. Supergroups number for themselves, as some servers do with every chat: ids
/// that are free in this chat come after.
pub(super) fn candidates(after: i64, known: &KnownIds) -> Vec<i64> {
    let free = |taken: &[i64], beyond: i64, most: usize| -> Vec<i64> {
        let last = taken.iter().copied().fold(after, i64::max).saturating_add(beyond);
        let taken: HashSet<i64> = taken.iter().copied().collect();
        (after.saturating_add(1)..=last)
            .filter(|id| !taken.contains(id))
            .take(most)
            .collect()
    };
    let mut candidates = free(&known.anywhere, BEYOND, CANDIDATES);
    for id in free(&known.in_chat, BEYOND_IN_CHAT, CANDIDATES_IN_CHAT) {
        if !candidates.contains(&id) {
            candidates.push(id);
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(in_chat: &[i64], anywhere: impl IntoIterator<Item = i64>) -> KnownIds {
        KnownIds {
            in_chat: in_chat.to_vec(),
            anywhere: anywhere.into_iter().collect(),
        }
    }

    #[test]
    fn a_quiet_bot_s_message_is_looked_for_just_after_the_question() {
        assert_eq!(candidates(10, &known(&[], [])), [11, 12, 13, 14, 15, 16, 17, 18]);
    }

    #[test]
    fn ids_of_other_chats_are_passed_over_first_and_tried_last() {
        let found = candidates(10, &known(&[14], 11..=40));
        assert_eq!(found, [41, 42, 43, 44, 45, 46, 47, 48, 11, 12, 13, 15, 16, 17]);
    }

    #[test]
    fn gaps_come_before_what_lies_beyond_and_there_is_an_end() {
        let every_other = (100..1000).filter(|id| id % 2 == 0);
        let found = candidates(100, &known(&[], every_other));
        assert_eq!(found[..3], [101, 103, 105]);
        assert_eq!(found.len(), CANDIDATES + 1, "102 is free in the chat");
        assert_eq!(candidates(i64::MAX - 1, &known(&[], [])), [i64::MAX], "never overflows");
    }
}
