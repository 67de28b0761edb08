//! Pairs the labels of a model with the classes of a dataset.

use anyhow::Result;
use eomt_edge_host::output::usage;

use crate::datasets::labels::Class;

/// How labels and classes are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatchBy {
    /// Same name, whatever the case.
    #[default]
    Name,
    /// The label's number is the category's id.
    Id,
    /// The first label is the category with the smallest id, and so on.
    Order,
}

/// The class of each label; `None`: the dataset has none, and predictions of it do not count.
///
/// # Errors
/// When no class has a label, or by number one has none or another's name, or one has several labels or another's name.
pub fn match_labels(labels: &[String], classes: &[Class], by: MatchBy, model: &str) -> Result<Vec<Option<usize>>> {
    let mut order: Vec<usize> = (0..classes.len()).collect();
    order.sort_by_key(|class| classes[*class].id);
    let plain = |name: &str| name.trim().to_lowercase();
    let named = |label: &str| classes.iter().position(|class| plain(&class.name) == plain(label));
    let same = |(place, class): &(usize, &Class)| named(&class.name) != Some(*place);
    if by == MatchBy::Name
        && let Some((_, class)) = classes.iter().enumerate().find(same)
    {
        let first = named(&class.name).map_or(class.id, |first| classes[first].id);
        let name = &class.name;
        return usage(format!(
            "the dataset's categories {first} and {} are both called {name}: --match id or --match order is needed",
            class.id
        ));
    }
    let find = |(number, label): (usize, &String)| match by {
        MatchBy::Name => named(label),
        MatchBy::Id => classes.iter().position(|class| class.id == number as u64),
        MatchBy::Order => order.get(number).copied(),
    };
    let matched: Vec<Option<usize>> = labels.iter().enumerate().map(find).collect();
    // by number, a label whose name is another class's says that the numbers mean something else
    let other = |class: usize, label: &str| plain(&classes[class].name) != plain(label) && named(label).is_some();
    let crossed = |(label, class): &(&String, &Option<usize>)| class.is_some_and(|class| other(class, label));
    if by != MatchBy::Name
        && let Some((label, Some(class))) = labels.iter().zip(&matched).find(crossed)
    {
        let class = &classes[*class];
        return usage(format!(
            "{model}: by number the label {label} would be category {} ({}), and the dataset has a class of the label's name: --match name pairs them",
            class.id, class.name
        ));
    }
    let labels_of = |class: usize| matched.iter().filter(move |matched| **matched == Some(class)).count();
    let missing: Vec<&str> = (0..classes.len()).filter(|class| labels_of(*class) == 0).map(|class| classes[class].name.as_str()).collect();
    let shown = missing.iter().take(5).copied().collect::<Vec<_>>().join(", ");
    let more = if missing.len() > 5 { format!(" and {} more", missing.len() - 5) } else { String::new() };
    let others = if by == MatchBy::Name { "; --match id or --match order pairs them by number" } else { "" };
    // by number, one that is missing says that the numbers mean something else
    if missing.len() == classes.len() || (!missing.is_empty() && by != MatchBy::Name) {
        return usage(format!("{model}: no label is the dataset's class {shown}{more}{others}"));
    }
    if !missing.is_empty() {
        log::warn!("{model}: no label is the dataset's class {shown}{more}, of which it can find nothing{others}");
    }
    if let Some(class) = (0..classes.len()).find(|class| labels_of(*class) > 1) {
        return usage(format!(
            "{model}: several labels are the dataset's class {}; --match id or --match order is needed",
            classes[class].name
        ));
    }
    let unused = matched.iter().filter(|class| class.is_none()).count();
    if unused > 0 {
        log::warn!(
            "{model}: {unused} of its {} labels are no class of the dataset, and its predictions of them do not count",
            labels.len()
        );
    }
    Ok(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_a_label_is_a_warning_and_no_label_at_all_an_error() {
        let class = |id: u64, name: &str| Class { id, name: name.to_owned(), is_thing: None };
        let classes = [class(9, "Dog"), class(1, "cat")];
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let by = |names: &[&str], by| match_labels(&labels(names), &classes, by, "m");
        assert_eq!(by(&["cat", "dog", "cow"], MatchBy::Name).unwrap(), [Some(1), Some(0), None]);
        assert_eq!(by(&["x", "y"], MatchBy::Order).unwrap(), [Some(1), Some(0)]);
        assert!(by(&["dog", "cat"], MatchBy::Order).unwrap_err().to_string().contains("--match name"));
        let twice = match_labels(&labels(&["cat"]), &[class(3, "cat"), class(5, "Cat ")], MatchBy::Name, "m").unwrap_err().to_string();
        assert!(twice.contains("3 and 5"), "{twice}");
        assert!(by(&["x", "y"], MatchBy::Id).unwrap_err().to_string().contains("Dog"));
        assert_eq!(by(&["cat", "cow"], MatchBy::Name).unwrap(), [Some(1), None]);
        let none = by(&["cow", "hen"], MatchBy::Name).unwrap_err().to_string();
        assert!(none.contains("Dog, cat") && none.contains("--match id"), "{none}");
        assert!(by(&["cat", "dog", "DOG"], MatchBy::Name).unwrap_err().to_string().contains("several"));
    }
}
