//! Scores as a table for people and as JSON for programs.

use serde_json::{Map, Value, json};

/// Values 0 to 1; `None` where nothing was there to be scored.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Empty when there is only one.
    pub name: String,
    pub values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    pub task: &'static str,
    pub images: usize,
    pub columns: Vec<&'static str>,
    pub overall: Vec<Row>,
    pub class_columns: Vec<&'static str>,
    pub classes: Vec<Row>,
}

/// What a row's values are called.
fn object(columns: &[&'static str], row: &Row) -> Map<String, Value> {
    columns.iter().zip(&row.values).map(|(column, value)| ((*column).to_owned(), json!(value))).collect()
}

/// A percentage with two digits.
pub fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", 100.0 * value))
}

impl Scores {
    /// `{"task", "images", ..., "per_class": {...}}`; `null` where nothing was there to be scored.
    pub fn json(&self) -> Value {
        let mut document = Map::new();
        document.insert("task".to_owned(), json!(self.task));
        document.insert("images".to_owned(), json!(self.images));
        for row in &self.overall {
            match row.name.as_str() {
                "" => document.extend(object(&self.columns, row)),
                name => drop(document.insert(name.to_owned(), Value::Object(object(&self.columns, row)))),
            }
        }
        if !self.classes.is_empty() {
            let classes = self.classes.iter().map(|row| (row.name.clone(), Value::Object(object(&self.class_columns, row))));
            document.insert("per_class".to_owned(), Value::Object(classes.collect()));
        }
        Value::Object(document)
    }

    /// These scores minus others of the same form.
    pub fn minus(&self, other: &Scores) -> Scores {
        let value = |(a, b): (&Option<f64>, &Option<f64>)| a.zip(*b).map(|(a, b)| a - b);
        let row = |(a, b): (&Row, &Row)| Row { name: a.name.clone(), values: a.values.iter().zip(&b.values).map(value).collect() };
        let rows = |a: &[Row], b: &[Row]| a.iter().zip(b).map(row).collect();
        Scores { overall: rows(&self.overall, &other.overall), classes: rows(&self.classes, &other.classes), ..self.clone() }
    }

    /// Lines of a table in percent: the overall scores, then the classes that occur.
    pub fn table(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (header, columns, rows) in self.parts() {
            if columns.len() > 4 {
                let pairs = |row: &Row| {
                    columns
                        .iter()
                        .zip(row.values.clone())
                        .map(|(column, value)| format!("{column:<22} {:>8}", percent(value)))
                        .collect::<Vec<_>>()
                };
                lines.extend(rows.iter().flat_map(pairs));
                continue;
            }
            lines.push(format!("{header:<22} {}", columns.iter().map(|column| format!("{column:>14}")).collect::<String>()));
            for row in rows {
                let values: String = row.values.iter().map(|value| format!("{:>14}", percent(*value))).collect();
                lines.push(format!("{:<22} {values}", row.name));
            }
        }
        lines
    }

    /// Lines of a table in percent: each score of `self` and `other`, and how much larger the second is.
    pub fn side_by_side(&self, other: &Scores) -> Vec<String> {
        let difference = other.minus(self);
        let mut lines = Vec::new();
        for (index, (header, columns, rows)) in self.parts().into_iter().enumerate() {
            lines.push(format!("{header:<22} {:<14} {:>9} {:>9} {:>9}", "", "A", "B", "B - A"));
            let (theirs, change) = (other.parts()[index].2, difference.parts()[index].2);
            for (place, row) in rows.iter().enumerate() {
                // classes: the first score only
                for (at, column) in columns.iter().enumerate().take(if index == 0 { columns.len() } else { 1 }) {
                    let signed = change[place].values[at].map_or_else(|| "-".to_owned(), |value| format!("{:+.2}", 100.0 * value));
                    let (a, b) = (percent(row.values[at]), percent(theirs[place].values[at]));
                    lines.push(format!("{:<22} {column:<14} {a:>9} {b:>9} {signed:>9}", row.name));
                }
            }
        }
        lines
    }

    /// Header, columns and rows of both parts; of the classes, those that were seen.
    fn parts(&self) -> Vec<(&'static str, &[&'static str], &[Row])> {
        let mut parts: Vec<(&'static str, &[&'static str], &[Row])> = vec![("", &self.columns, &self.overall)];
        if !self.classes.is_empty() {
            parts.push(("class", &self.class_columns, &self.classes));
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(value: f64) -> Scores {
        Scores {
            task: "semantic",
            images: 3,
            columns: vec!["miou"],
            overall: vec![Row { name: String::new(), values: vec![Some(value)] }],
            class_columns: vec!["iou"],
            classes: vec![Row { name: "cat".into(), values: vec![Some(value)] }, Row { name: "dog".into(), values: vec![None] }],
        }
    }

    #[test]
    fn one_form_for_people_and_one_for_programs() {
        let json = scores(0.25).json();
        assert_eq!(json["miou"], 0.25);
        assert_eq!(json["per_class"]["cat"]["iou"], 0.25);
        assert!(json["per_class"]["dog"]["iou"].is_null());
        assert_eq!(scores(0.5).minus(&scores(0.25)).overall[0].values, [Some(0.25)]);
        assert!(scores(0.25).table().iter().any(|line| line.contains("cat") && line.contains("25.00")));
        assert!(scores(0.5).side_by_side(&scores(0.25)).iter().any(|line| line.contains("-25.00")));
    }
}
