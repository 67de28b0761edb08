//! Values that several commands take.

/// Class indices.
#[derive(Debug, Clone)]
pub struct ClassList(pub Vec<u16>);

pub(super) fn class_list(text: &str) -> Result<ClassList, String> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let classes = items.map(|item| item.parse().map_err(|_| format!("'{item}' is not a class index"))).collect::<Result<_, _>>()?;
    Ok(ClassList(classes))
}

pub(super) fn probability(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| "it must lie between 0 and 1".to_owned())
}
