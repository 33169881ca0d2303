//! How much of a capacity one request may take of a device that several share.
//! `pkg/apis/resource/validation/validation.go` `validateRequestPolicy`.
use super::super::field::{Errors, Field};
use super::formats;
use crate::quantity::Quantity;

const VALUES_MAX: usize = 10;

/// What is wrong with the policy of a capacity that is `whole`.
pub fn request_policy(whole: &Field<'_>, policy: &Field<'_>, errors: &mut Errors) {
    let (values, range, default) = (policy.get("validValues"), policy.get("validRange"), policy.get("default"));
    let whole = amount(whole);
    let given = match (!values.is_empty(), range.is_set()) {
        (true, true) => {
            errors.push(policy.forbidden(
                "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
            ));
            return;
        }
        (true, false) => "validValues",
        (false, true) => "validRange",
        (false, false) => return,
    };
    if !default.is_set() {
        errors.push(default.required(format!("required when {given} is defined")));
    } else if range.is_set() {
        valid_range(amount(&default), whole, &range, errors);
    } else {
        valid_values(amount(&default), whole, &values, errors);
    }
}

fn amount(field: &Field<'_>) -> Quantity {
    field.quantity().unwrap_or(Quantity::ZERO)
}

/// An error at a quantity, which is shown as it prints.
fn refuse(at: &Field<'_>, shown: Quantity, detail: impl Into<String>, errors: &mut Errors) {
    errors.push(at.invalid_as(shown.to_string(), detail));
}

fn valid_values(default: Quantity, whole: Quantity, values: &Field<'_>, errors: &mut Errors) {
    let amounts: Vec<Quantity> = values.items().map(|value| amount(&value)).collect();
    for (index, pair) in amounts.windows(2).enumerate() {
        if pair[0] > pair[1] {
            refuse(&values.element(index + 1), pair[1], "values must be sorted in ascending order", errors);
        }
    }
    if !formats::is_too_long(values, VALUES_MAX, false, errors) {
        for (value, amount) in values.items().zip(&amounts) {
            if *amount > whole {
                refuse(&value, *amount, format!("option is larger than capacity value: {whole}"), errors);
            }
        }
        formats::duplicates(values, |value| amount(value).value().to_string(), errors);
    }
    // Too many values are not looked at, so the default is not found among them.
    if values.len() > VALUES_MAX || !amounts.contains(&default) {
        refuse(values, default, "default value is not valid according to the requestPolicy", errors);
    }
}

fn valid_range(default: Quantity, whole: Quantity, range: &Field<'_>, errors: &mut Errors) {
    let Some(least) = range.get("min").set() else {
        errors.push(range.get("min").required("required when validRange is defined"));
        return;
    };
    let (min, max, step) = (amount(&least), range.get("max").set(), range.get("step").set());
    let at_default = range.get("default");
    if min > whole {
        refuse(&least, min, format!("min is larger than capacity value: {whole}"), errors);
    }
    if default < min {
        refuse(&at_default, default, format!("default is less than min: {min}"), errors);
    }
    if let Some(most) = &max {
        let max = amount(most);
        if min > max {
            refuse(most, min, format!("min is larger than max: {max}"), errors);
        }
        if max > whole {
            refuse(most, max, format!("max is larger than capacity value: {whole}"), errors);
        }
        if default > max {
            refuse(&at_default, default, format!("default is more than max: {max}"), errors);
        }
    }
    let Some(at_step) = step else { return };
    let step = amount(&at_step);
    if step <= Quantity::ZERO {
        refuse(&at_step, step, "must be greater than zero", errors);
        return;
    }
    let one = min + step;
    if one > whole {
        refuse(&at_step, step, format!("one step {one} is larger than capacity value: {whole}"), errors);
    }
    let max = max.map(|most| (amount(&most), most));
    let mut negative = false;
    for (at, value) in [(&at_default, default), (&least, min)].into_iter().chain(max.iter().map(|(max, at)| (at, *max)))
    {
        if value < Quantity::ZERO {
            negative = true;
            refuse(at, value, "must be greater than or equal to 0", errors);
        }
    }
    if negative {
        return;
    }
    for value in [Some(default), max.map(|(max, _)| max)].into_iter().flatten() {
        if (value.value() - min.value()) % step.value() != 0 {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            refuse(&at_step, value, detail, errors);
        }
    }
}
