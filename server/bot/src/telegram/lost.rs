//! Which id a message may have that was sent, but whose id was never learnt.

use std::collections::HashSet;

use services::{KnownIds, Taken};

/// However a search goes, and however many attempts take part in it: each candidate is one edit, which takes its turn in the pace of
/// the chat and is refused by Telegram if it is not the one.
const MOST_TRIED: usize = 16;
/// How far beyond the highest id that is known, at least: others of the bot may have been sent by what keeps no record here.
const BEYOND: i64 = 5;
/// Where it is not plain how chats are numbered: if each numbers for itself, it is one of the next in this chat.
const AFTER_ALL_IN_CHAT: usize = 3;
/// Other messages that nobody has noted: of people whose updates have not come yet, of Telegram itself.
const HOLES: usize = 8;
/// After so many the known ids are looked up anew. When a replica was killed, all that it left unnoted is searched for at the same
/// time, and each find leaves less for the others; on a busy bot something is soon sent that shows where to stop.
const AT_A_TIME: usize = 4;

/// The next to try, likeliest first; empty when it is time to give up. Telegram numbers the messages of all private chats and small
/// groups of a bot in one row, so first come ids that no message we know of has, in whatever chat. Supergroups number for
/// themselves, as some servers do with every chat.
pub(super) fn candidates(known: &KnownIds, tried: &HashSet<i64>) -> Vec<i64> {
    let mut order = Vec::new();
    match (&known.in_row, &known.in_chat) {
        (Some(row), chat) => {
            order.extend(free(row, tried));
            let in_chat = chat.iter().flat_map(|chat| free(chat, &HashSet::new()));
            order.extend(in_chat.take(AFTER_ALL_IN_CHAT));
        }
        (None, Some(chat)) => order.extend(free(chat, tried)),
        (None, None) => {}
    }
    let mut seen = tried.clone();
    order.retain(|id| seen.insert(*id));
    order.truncate(AT_A_TIME.min(MOST_TRIED.saturating_sub(tried.len())));
    order
}

/// From the first that may be free to the last.
fn free(taken: &Taken, tried: &HashSet<i64>) -> Vec<i64> {
    let ids: HashSet<i64> = taken.ids.iter().copied().collect();
    let free = |id: &i64| !ids.contains(id);
    let end = taken.before.unwrap_or(i64::MAX);
    let (low, high) = (taken.after.saturating_add(1), taken.highest.saturating_add(1).min(end));
    let between = (low..high).filter(free).take(HOLES);
    // Of those just beyond, any that was under way then may be ours. What comes in meanwhile is passed over: written before ours, and
    // fetched late, it leads to it.
    let under_way = usize::try_from(taken.unnoted.saturating_add(4).max(BEYOND)).unwrap_or(MOST_TRIED);
    let beyond = (high..end).filter(free).take(under_way.min(MOST_TRIED));
    between.chain(beyond).filter(|id| !tried.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After one message in all chats and in this one.
    fn known(after: i64, in_chat: &[i64], in_row: impl IntoIterator<Item = i64>) -> KnownIds {
        let taken = |ids: Vec<i64>| Taken {
            after,
            before: None,
            highest: ids.iter().copied().fold(after, i64::max),
            ids,
            unnoted: 1,
        };
        KnownIds {
            in_row: Some(taken(in_row.into_iter().collect())),
            in_chat: Some(taken(in_chat.to_vec())),
        }
    }

    fn under_way(mut known: KnownIds, unnoted: i64) -> KnownIds {
        known.in_row.as_mut().unwrap().unnoted = unnoted;
        known
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
        assert_eq!(all(&known(10, &[], [])), [11, 12, 13, 14, 15]);
    }

    #[test]
    fn ids_of_other_chats_are_passed_over_first_and_tried_last() {
        let found = all(&known(10, &[14], 11..=40));
        assert_eq!(found, [41, 42, 43, 44, 45, 11, 12, 13]);
    }

    #[test]
    fn nothing_is_tried_beyond_what_was_sent_later() {
        let mut busy = known(10, &[], [11, 12, 15, 16, 18]);
        busy.in_row.as_mut().unwrap().before = Some(16);
        assert_eq!(all(&under_way(busy.clone(), 40)), [13, 14, 11, 12]);
        busy.in_chat = None;
        assert_eq!(all(&under_way(busy, 40)), [13, 14], "it is plain that there is one row");
    }

    #[test]
    fn gaps_come_before_what_lies_beyond_and_there_is_an_end() {
        let every_other = (100..1000).filter(|id| id % 2 == 0);
        let found = all(&known(100, &[], every_other));
        assert_eq!(found[..3], [101, 103, 105]);
        assert_eq!(found.len(), HOLES + 5 + 1, "102 is free in the chat");
        assert_eq!(all(&known(i64::MAX - 2, &[], [])), [i64::MAX - 1], "never overflows");
    }

    /// A replica with ten answers under way is killed after the last of them was sent, and before any was noted.
    #[test]
    fn the_more_are_under_way_the_further_it_is_looked() {
        let killed = under_way(known(90, &[], 91..=100), 10);
        assert!((101..=110).all(|id| all(&killed).contains(&id)));
        assert_eq!(all(&under_way(known(0, &[], []), i64::MAX)).len(), MOST_TRIED);
    }

    /// Written before it, but fetched later; or written later: that is not known.
    #[test]
    fn what_came_in_meanwhile_is_passed_over_and_does_not_prolong_the_search() {
        let mut chat = known(10, &[11, 12, 14, 15, 16, 20, 25], []);
        chat.in_row = None;
        chat.in_chat.as_mut().unwrap().highest = 11;
        assert_eq!(all(&chat), [13, 17, 18, 19, 21]);
        let five: HashSet<i64> = [13, 17, 18, 19, 21].into();
        chat.in_chat.as_mut().unwrap().ids.extend(13..=21);
        assert_eq!(candidates(&chat, &five), [22, 23, 24, 26]);
        let fourteen: HashSet<i64> = (12..26).collect();
        assert_eq!(candidates(&chat, &fourteen), [26, 27]);
        let sixteen: HashSet<i64> = (12..28).collect();
        assert!(candidates(&chat, &sixteen).is_empty());
    }

    #[test]
    fn a_supergroup_numbers_for_itself() {
        let supergroup = KnownIds {
            in_row: None,
            ..known(10, &[11, 12], [])
        };
        assert_eq!(all(&supergroup), [13, 14, 15, 16, 17]);
    }

    #[test]
    fn what_was_noted_meanwhile_is_not_tried() {
        let first = candidates(&known(10, &[], []), &HashSet::new());
        let tried: HashSet<i64> = first.iter().copied().take(3).collect();
        assert_eq!(candidates(&known(10, &[], 11..=17), &tried)[..2], [18, 19]);
    }
}
