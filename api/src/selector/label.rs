//! Label selectors: requirements on labels, all of which must hold (apimachinery `pkg/labels/selector.go`).

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::SelectorError;
use crate::strategy::names::{label_value, qualified_name};

/// How a [`Requirement`] compares a label with its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `key in (a,b)`
    In,
    /// `key notin (a,b)`; also holds where the label is absent
    NotIn,
    /// `key=a`
    Equals,
    /// `key==a`
    DoubleEquals,
    /// `key!=a`; also holds where the label is absent
    NotEquals,
    /// `key`
    Exists,
    /// `!key`
    DoesNotExist,
    /// `key>1`, both sides as integers
    GreaterThan,
    /// `key<1`, both sides as integers
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without duplicates.
    values: Vec<String>,
}

/// Requirements that must all hold. No requirement at all selects everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LabelSelector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    /// Selects no object: what a `null` LabelSelector means.
    nothing: bool,
}

impl Requirement {
    /// A requirement whose key, number of values and values have been checked.
    ///
    /// # Errors
    /// In the words of apimachinery `labels.NewRequirement`.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Requirement, SelectorError> {
        values.sort();
        values.dedup();
        let mut errors = Vec::new();
        let problems = qualified_name(key);
        if !problems.is_empty() {
            errors.push(format!("key: Invalid value: {key:?}: {}", problems.join("; ")));
        }
        errors.extend(operand_errors(operator, &values));
        for (i, value) in values.iter().enumerate() {
            let problems = label_value(value);
            if !problems.is_empty() {
                errors.push(format!("values[{i}][{key}]: Invalid value: {value:?}: {}", problems.join("; ")));
            }
        }
        match errors.len() {
            0 => Ok(Requirement { key: key.to_owned(), operator, values }),
            1 => Err(SelectorError::Invalid(errors.remove(0))),
            _ => Err(SelectorError::Invalid(format!("[{}]", errors.join(", ")))),
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The comparison.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values compared with, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether a label with this value, or its absence, satisfies the requirement.
    pub fn matches(&self, label: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let (Some(label), Some(bound)) =
                    (label.and_then(integer), self.values.first().and_then(|v| integer(v)))
                else {
                    return false;
                };
                if self.operator == Operator::GreaterThan { label > bound } else { label < bound }
            }
        }
    }
}

/// What is wrong with the number of values, or with values that must be integers.
fn operand_errors(operator: Operator, values: &[String]) -> Vec<String> {
    let mut errors = Vec::new();
    let count = |detail: &str| format!("values: Invalid value: {}: {detail}", Value::from(values.to_vec()));
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            errors.push(count("for 'in', 'notin' operators, values set can't be empty"));
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            errors.push(count("exact-match compatibility requires one single value"));
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            errors.push(count("values set must be empty for exists and does not exist"));
        }
        Operator::GreaterThan | Operator::LessThan => {
            if values.len() != 1 {
                errors.push(count("for 'Gt', 'Lt' operators, exactly one value is required"));
            }
            for (i, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    errors.push(format!(
                        "values[{i}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
        }
        _ => {}
    }
    errors
}

fn integer(value: &str) -> Option<i64> {
    value.parse().ok()
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    /// Selects no object.
    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// The selector of these requirements.
    pub fn new(mut requirements: Vec<Requirement>) -> LabelSelector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// The string form that `-l`, `labelSelector=` and `status.selector` of a Scale use, e.g. `app=web,tier in (a,b),!canary`.
    ///
    /// # Errors
    /// In the words of apimachinery `labels.Parse`.
    pub fn parse(selector: &str) -> Result<LabelSelector, SelectorError> {
        super::parse::parse(selector).map(LabelSelector::new)
    }

    /// The selector of a set of labels, as `Service.spec.selector` is one (`labels.SelectorFromSet`; not validated).
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let equals = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        LabelSelector::new(labels.into_iter().map(equals).collect())
    }

    /// The selector of a `metav1.LabelSelector` value: `{matchLabels, matchExpressions}`. Absent or `null` selects nothing,
    /// `{}` everything (`metav1.LabelSelectorAsSelector`).
    ///
    /// # Errors
    /// When an operator, a key or a value is not valid.
    pub fn from_value(selector: Option<&Value>) -> Result<LabelSelector, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            requirements.push(Requirement::from_expression(expression)?);
        }
        Ok(LabelSelector::new(requirements))
    }

    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether the selector selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether the selector selects nothing, whatever the labels.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Whether labels, given by a look-up, are selected.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }

    /// Whether the labels of an object, as `metadata.labels` holds them, are selected.
    pub fn matches_labels(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches(|key| labels?.get(key)?.as_str())
    }

    /// Whether the labels of a typed object are selected.
    pub fn matches_set(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels?.get(key).map(String::as_str))
    }
}

impl Requirement {
    fn from_expression(expression: &Value) -> Result<Requirement, SelectorError> {
        let text = |field: &str| expression.get(field).and_then(Value::as_str).unwrap_or_default();
        let operator = match text("operator") {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => {
                return Err(SelectorError::Invalid(format!("{other:?} is not a valid label selector operator")));
            }
        };
        let values = expression.get("values").and_then(Value::as_array).into_iter().flatten();
        Requirement::new(text("key"), operator, values.filter_map(Value::as_str).map(str::to_owned).collect())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requirement { key, operator, values } = self;
        let values = values.join(",");
        match operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        LabelSelector::parse(selector).unwrap().matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn matching() {
        let web = [("app", "web"), ("weight", "7")];
        for yes in
            ["", "app=web", "app==web", "app!=api", "app in (api,web)", "tier notin (a)", "app", "!tier", "weight>6"]
        {
            assert!(matches(yes, &web), "{yes}");
        }
        for no in
            ["app=api", "app!=web", "app notin (web)", "tier", "!app", "weight<7", "app>1", "app=web,tier=a", "app="]
        {
            assert!(!matches(no, &web), "{no}");
        }
    }

    #[test]
    fn from_values() {
        let parse =
            |value: Value| LabelSelector::from_value(Some(&value)).map(|s| s.to_string()).map_err(|e| e.to_string());
        assert_eq!(parse(json!({"matchLabels": {"b": "2", "a": "1"}})).unwrap(), "a=1,b=2");
        let all = json!({"matchExpressions": [
            {"key": "z", "operator": "In", "values": ["y", "x"]},
            {"key": "a", "operator": "DoesNotExist"},
        ]});
        assert_eq!(parse(all).unwrap(), "!a,z in (x,y)");
        assert_eq!(
            parse(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).unwrap_err(),
            "\"Near\" is not a valid label selector operator"
        );
        assert_eq!(
            parse(json!({"matchExpressions": [{"key": "a", "operator": "In"}]})).unwrap_err(),
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
        );
        assert!(LabelSelector::from_value(None).unwrap().is_nothing());
        assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().is_everything());
        assert!(!LabelSelector::nothing().matches(|_| None));
    }

    #[test]
    fn of_a_set() {
        let selector = LabelSelector::from_set([("b", "2"), ("a", "1")]);
        assert_eq!(selector.to_string(), "a=1,b=2");
        assert!(selector.matches_labels(json!({"a": "1", "b": "2", "c": "3"}).as_object()));
        assert!(!selector.matches_labels(None));
    }
}
