//! Names of classes and zones as topics and Home Assistant take them.
//!
//! Invariants: a slug has 1 to [`SLUG_MAX`] characters of `a-z`, `0-9` and `_`, so that `-` and `/` can stand between slugs; no two classes
//! of a model get the same one.

use std::collections::HashSet;

/// Most characters of a slug.
const SLUG_MAX: usize = 64;

/// `name` in small letters, with `_` for everything else; `None` when no letter or digit is left.
pub fn slug(name: &str) -> Option<String> {
    let mut slug = String::new();
    for c in name.trim().chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            // "dining table-merged" has one between two words
            _ if slug.ends_with('_') => {}
            _ => slug.push('_'),
        }
        if slug.len() >= SLUG_MAX {
            break;
        }
    }
    slug.bytes().any(|byte| byte != b'_').then_some(slug)
}

/// A slug for each label. Labels that would get the same one, or none, get the number of their class behind it.
pub fn class_slugs(labels: &[String]) -> Vec<String> {
    let plain: Vec<Option<String>> = labels.iter().map(|label| slug(label)).collect();
    let mut seen = HashSet::new();
    let twice: HashSet<&String> = plain.iter().flatten().filter(|slug| !seen.insert(*slug)).collect();
    let mut taken: HashSet<String> = plain.iter().flatten().filter(|slug| !twice.contains(slug)).cloned().collect();
    let unique = |(class, slug): (usize, &Option<String>)| match slug {
        Some(slug) if !twice.contains(slug) => slug.clone(),
        slug => {
            let stem = slug.as_deref().unwrap_or("class");
            let mut name = format!("{stem}_{class}");
            // another class may be called that
            while !taken.insert(name.clone()) {
                name.push('_');
            }
            name
        }
    };
    plain.iter().enumerate().map(unique).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs() {
        for (name, expected) in [
            ("person", Some("person")),
            ("Dining Table-merged", Some("dining_table_merged")),
            ("a/b#c+d", Some("a_b_c_d")),
            ("  traffic   light ", Some("traffic_light")),
            ("été", Some("_t_")),
            ("猫", None),
            ("", None),
            ("$SYS/\0", Some("_sys_")),
        ] {
            assert_eq!(slug(name).as_deref(), expected, "{name}");
        }
        assert_eq!(slug(&"x".repeat(1000)).unwrap().len(), SLUG_MAX);
    }

    #[test]
    fn no_two_classes_share_one() {
        let labels: Vec<String> = ["cup", "Cup", "cup_0", "猫", "犬", "dog", "class_3"].map(str::to_owned).into();
        assert_eq!(class_slugs(&labels), ["cup_0_", "cup_1", "cup_0", "class_3_", "class_4", "dog", "class_3"]);
        let many: Vec<String> = (0..2000).map(|i| ["cup", "cup_1", "", "x y"][i % 4].to_owned()).collect();
        assert_eq!(class_slugs(&many).into_iter().collect::<HashSet<_>>().len(), 2000);
    }
}
