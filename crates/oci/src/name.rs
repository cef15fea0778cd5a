//! Names of containers, networks and volumes.

/// True for `[a-zA-Z0-9][a-zA-Z0-9_.-]*` of at most 255 bytes: what docker accepts.
pub fn is_valid(name: &str) -> bool {
    name.len() <= 255
        && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

/// A name for people from eight random bytes: "keen_otter_4f".
pub fn from_random(random: [u8; 8]) -> String {
    let pick = |words: &[&'static str], i: usize| words[usize::from(random[i]) % words.len()];
    format!("{}_{}_{:02x}{:02x}", pick(ADJECTIVES, 0), pick(NOUNS, 1), random[2], random[3])
}

/// 64 hex digits from 32 random bytes: an id.
pub fn id_from_random(random: [u8; 32]) -> String {
    hex::encode(random)
}

/// True for 64 lower-case hex digits.
pub fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

const ADJECTIVES: &[&str] = &[
    "brave", "bright", "calm", "clever", "crisp", "eager", "fair", "fleet", "fresh", "gentle", "glad", "grand",
    "happy", "jolly", "keen", "kind", "lively", "lucky", "merry", "mild", "neat", "nimble", "plain", "proud", "quick",
    "quiet", "ready", "sharp", "smart", "solid", "steady", "sunny", "swift", "tidy", "warm", "wise",
];
const NOUNS: &[&str] = &[
    "anchor",
    "badger",
    "beacon",
    "bollard",
    "buoy",
    "cedar",
    "cormorant",
    "crane",
    "current",
    "dolphin",
    "drifter",
    "ferry",
    "finch",
    "gannet",
    "gull",
    "harbour",
    "heron",
    "jetty",
    "keel",
    "lantern",
    "mast",
    "mooring",
    "otter",
    "pelican",
    "pilot",
    "plover",
    "quay",
    "reef",
    "rudder",
    "seal",
    "skipper",
    "sloop",
    "tern",
    "tide",
    "tug",
    "wharf",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(is_valid(&from_random([7; 8])) && is_valid("a") && is_valid("0.x-Y_"));
        assert!(!is_valid("") && !is_valid("-a") && !is_valid("a/b") && !is_valid("ä") && !is_valid(&"a".repeat(256)));
        assert!(is_id(&id_from_random([9; 32])));
    }
}
