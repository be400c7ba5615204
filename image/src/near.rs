//! Names that were perhaps meant.

/// The names among `known` that are a slip of the finger away from `wanted`, the nearest first, at
/// most three: swapped, missing, wrong or extra letters, one for each three of them.
#[must_use]
pub fn names<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let slips = (wanted.chars().count() / 3).max(1);
    let mut near: Vec<(usize, &str)> = known
        .into_iter()
        .map(|name| (strsim::osa_distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= slips)
        .collect();
    near.sort_unstable();
    near.truncate(3);
    near.into_iter().map(|(_, name)| name).collect()
}

/// `; did you mean "X"?` for the nearest of `known`, or nothing.
#[must_use]
pub fn hint<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    match names(wanted, known).first() {
        Some(name) => format!("; did you mean {name:?}?"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let known = ["packages", "package", "modules", "remove"];
        assert_eq!(names("packges", known), ["packages", "package"]);
        assert_eq!(names("moduels", known), ["modules"]);
        assert!(names("service", known).is_empty());
        assert_eq!(hint("remvoe", known), "; did you mean \"remove\"?");
        assert_eq!(hint("x", known), "");
    }
}
