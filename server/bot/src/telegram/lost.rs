//! Which id a message may have that was sent, but whose id was never learnt.

use std::collections::HashSet;

use services::{KnownIds, Taken};

/// How far beyond the highest id that is known, at least: others of the bot may have been sent by what keeps no record here.
const BEYOND: i64 = 8;
/// However many are lost at once, the search ends: each candidate is one edit, which takes its turn in the pace of the chat.
const MOST_BEYOND: i64 = 64;
/// Where each chat numbers for itself, ids that are unknown are few: what was written there since, and has not come yet.
const BEYOND_IN_CHAT: i64 = 5;
const CANDIDATES_IN_CHAT: usize = 8;
/// Other messages that nobody has noted: of people whose updates have not come yet, of Telegram itself.
const HOLES: usize = 12;
/// After so many the known ids are looked up anew: when a replica was killed, all that it left unnoted is searched for at the same
/// time, and each find leaves less for the others.
const AT_A_TIME: usize = 8;

/// The next to try, likeliest first; empty when it is time to give up. Telegram numbers the messages of all private chats and small
/// groups of a bot in one row, so first come ids that no message we know of has, in whatever chat. Supergroups number for
/// themselves, as some servers do with every chat: ids that are free in this chat come after.
pub(super) fn candidates(known: &KnownIds, tried: &HashSet<i64>) -> Vec<i64> {
    // Of the messages just beyond the highest known id, any of those under way may be ours.
    let beyond = known.unnoted.saturating_add(4).clamp(BEYOND, MOST_BEYOND);
    let most = HOLES + usize::try_from(beyond).unwrap_or(0);
    let (in_row, in_chat) = match &known.in_row {
        Some(row) => (
            free(row, beyond, most),
            free(&known.in_chat, BEYOND_IN_CHAT, CANDIDATES_IN_CHAT),
        ),
        None => (Vec::new(), free(&known.in_chat, beyond, most)),
    };
    let left = (most + CANDIDATES_IN_CHAT).saturating_sub(tried.len());
    let mut seen = tried.clone();
    in_row
        .into_iter()
        .chain(in_chat)
        .filter(|id| seen.insert(*id))
        .take(AT_A_TIME.min(left))
        .collect()
}

fn free(taken: &Taken, beyond: i64, most: usize) -> Vec<i64> {
    let last = taken.ids.iter().copied().fold(taken.after, i64::max);
    let ids: HashSet<i64> = taken.ids.iter().copied().collect();
    (taken.after.saturating_add(1)..=last.saturating_add(beyond))
        .filter(|id| !ids.contains(id))
        .take(most)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After one message in all chats and in this one.
    fn known(after: i64, in_chat: &[i64], in_row: impl IntoIterator<Item = i64>) -> KnownIds {
        let taken = |ids: Vec<i64>| Taken { after, ids };
        KnownIds {
            in_chat: taken(in_chat.to_vec()),
            in_row: Some(taken(in_row.into_iter().collect())),
            unnoted: 1,
        }
    }

    /// All that is tried if nothing is found.
    fn all(known: &KnownIds) -> Vec<i64> {
        let (mut order, mut tried) = (Vec::new(), HashSet::new());
        loop {
            let next = candidates(known, &tried);
            if next.is_empty() {
                return order;
            }
            tried.extend(&next);
            order.extend(next);
        }
    }

    #[test]
    fn a_quiet_bot_s_message_is_looked_for_just_after_the_question() {
        assert_eq!(all(&known(10, &[], [])), [11, 12, 13, 14, 15, 16, 17, 18]);
    }

    #[test]
    fn ids_of_other_chats_are_passed_over_first_and_tried_last() {
        let found = all(&known(10, &[14], 11..=40));
        assert_eq!(found, [41, 42, 43, 44, 45, 46, 47, 48, 11, 12, 13, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn gaps_come_before_what_lies_beyond_and_there_is_an_end() {
        let every_other = (100..1000).filter(|id| id % 2 == 0);
        let found = all(&known(100, &[], every_other));
        assert_eq!(found[..3], [101, 103, 105]);
        assert_eq!(found.len(), HOLES + 8 + 2, "102 and 104 are free in the chat");
        assert_eq!(all(&known(i64::MAX - 1, &[], [])), [i64::MAX], "never overflows");
    }

    /// A replica with fifty answers under way is killed after the last of them was sent, and before any was noted.
    #[test]
    fn the_more_are_under_way_the_further_it_is_looked() {
        let killed = KnownIds {
            unnoted: 50,
            ..known(90, &[], 91..=100)
        };
        assert!((101..=150).all(|id| all(&killed).contains(&id)));
        let endless = KnownIds {
            unnoted: i64::MAX,
            ..known(0, &[], [])
        };
        assert_eq!(all(&endless).len(), 64);
    }

    #[test]
    fn a_supergroup_numbers_for_itself() {
        let supergroup = KnownIds {
            in_row: None,
            ..known(10, &[11, 12], [])
        };
        assert_eq!(all(&supergroup), [13, 14, 15, 16, 17, 18, 19, 20]);
    }

    #[test]
    fn what_was_noted_meanwhile_is_not_tried() {
        let first = candidates(&known(10, &[], []), &HashSet::new());
        let tried: HashSet<i64> = first.iter().copied().take(3).collect();
        assert_eq!(candidates(&known(10, &[], 11..=17), &tried)[..2], [18, 19]);
    }
}
