//! From the claims of a verified token to a user.

use std::collections::BTreeMap;

use minik8s_api::custom::cel::{Expr, Failure, Value as Cel, values};
use serde_json::{Map, Value, json};

use crate::authn::configuration::{JwtAuthenticator, Mapping, claims_type, user_type};
use crate::identity::UserInfo;

/// What all expressions of one issuer may cost for one token.
const BUDGET: u64 = 10_000_000;
const NOT_TEXTS: &str = "expression must return a string or a list of strings";

/// Where a value comes from.
enum Source {
    /// Nowhere.
    Nothing,
    /// A claim, and what comes before its value.
    Claim(String, String),
    Expression(Expression),
}

struct Expression {
    source: String,
    program: Expr,
}

/// An expression that must be true, and what is said if not.
struct Rule {
    expression: Expression,
    message: String,
}

/// The mappings and rules of one issuer, compiled.
pub struct Mapper {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    claim_rules: Vec<Rule>,
    user_rules: Vec<Rule>,
}

/// One evaluation's variables and what is left to spend.
struct Scope {
    variables: [(&'static str, Cel); 1],
    budget: u64,
}

impl Scope {
    fn evaluate(&mut self, expression: &Expression) -> Result<Cel, String> {
        expression.program.evaluate(&self.variables, &mut self.budget).map_err(|failure| match failure {
            Failure::Cost => "the expression costs more than it may".to_owned(),
            Failure::Error(words) | Failure::Overload(words) => words,
        })
    }

    fn check(&mut self, rules: &[Rule]) -> Result<(), String> {
        for rule in rules {
            match self.evaluate(&rule.expression)? {
                Cel::Bool(true) => {}
                Cel::Bool(false) => {
                    let (source, message) = (&rule.expression.source, &rule.message);
                    return Err(format!("validation expression '{source}' failed: {message}"));
                }
                _ => return Err("validation expression must return a boolean".to_owned()),
            }
        }
        Ok(())
    }
}

fn compiled(source: &str, user: bool) -> Result<Expression, String> {
    let typed = if user { Expr::typed(source, &user_type()) } else { Expr::typed(source, &claims_type()) };
    typed.map(|(program, _)| Expression { source: source.to_owned(), program })
}

impl Source {
    fn of(mapping: &Mapping) -> Result<Source, String> {
        let prefix = mapping.prefix.clone().unwrap_or_default();
        match (mapping.claim.as_str(), mapping.expression.as_str()) {
            ("", "") => Ok(Source::Nothing),
            ("", expression) => compiled(expression, false).map(Source::Expression),
            (claim, _) => Ok(Source::Claim(claim.to_owned(), prefix)),
        }
    }
}

impl Mapper {
    /// The mappings of a checked configuration.
    pub fn new(of: &JwtAuthenticator) -> Result<Mapper, String> {
        let mappings = &of.claim_mappings;
        let (claimed, expressed): (Vec<_>, Vec<_>) =
            of.claim_validation_rules.iter().partition(|rule| rule.expression.is_empty());
        let rule = |source: &str, message: &str, user| {
            Ok(Rule { expression: compiled(source, user)?, message: message.to_owned() })
        };
        let extra =
            mappings.extra.iter().map(|extra| Ok((extra.key.clone(), compiled(&extra.value_expression, false)?)));
        Ok(Mapper {
            username: Source::of(&mappings.username)?,
            groups: Source::of(&mappings.groups)?,
            uid: Source::of(&mappings.uid)?,
            extra: extra.collect::<Result<_, String>>()?,
            required: claimed.iter().map(|rule| (rule.claim.clone(), rule.required_value.clone())).collect(),
            claim_rules: expressed
                .iter()
                .map(|own| rule(&own.expression, &own.message, false))
                .collect::<Result<_, String>>()?,
            user_rules: of
                .user_validation_rules
                .iter()
                .map(|own| rule(&own.expression, &own.message, true))
                .collect::<Result<_, String>>()?,
        })
    }

    /// The user of these claims, if they and the user keep the rules.
    pub fn user(&self, claims: &Map<String, Value>) -> Result<UserInfo, String> {
        let mut scope =
            Scope { variables: [("claims", values::plain(&Value::Object(claims.clone())))], budget: BUDGET };
        let user = UserInfo {
            name: self.username(claims, &mut scope)?,
            groups: self.groups(claims, &mut scope)?,
            uid: self.uid(claims, &mut scope)?,
            extra: self.extra(&mut scope)?,
        };
        for (claim, wanted) in &self.required {
            let value =
                claims.get(claim).ok_or_else(|| format!("oidc: required claim {claim} not present in ID token"))?;
            let got = value.as_str().ok_or_else(|| format!("oidc: parse claim {claim}: not a string"))?;
            if got != wanted {
                return Err(format!("oidc: required claim {claim} value does not match. Got = {got}, want = {wanted}"));
            }
        }
        let failed = |words: String| format!("oidc: error evaluating claim validation expression: {words}");
        scope.check(&self.claim_rules).map_err(failed)?;
        if !self.user_rules.is_empty() {
            let shown = json!({ "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra });
            let mut scope = Scope { variables: [("user", values::plain(&shown))], budget: scope.budget };
            let failed = |words: String| format!("oidc: error evaluating user info validation rule: {words}");
            scope.check(&self.user_rules).map_err(failed)?;
        }
        Ok(user)
    }

    fn username(&self, claims: &Map<String, Value>, scope: &mut Scope) -> Result<String, String> {
        let name = match &self.username {
            Source::Claim(claim, prefix) => {
                let text = text_claim(claims, claim);
                let name = text.map_err(|words| format!("oidc: parse username claims {claim:?}: {words}"))?;
                if claim == "email" && claims.get("email_verified").is_some_and(|verified| *verified != true) {
                    return Err("oidc: email not verified".to_owned());
                }
                format!("{prefix}{name}")
            }
            Source::Expression(expression) => text(scope, expression, "username")?,
            Source::Nothing => String::new(),
        };
        if name.is_empty() { Err("oidc: the token names nobody".to_owned()) } else { Ok(name) }
    }

    fn uid(&self, claims: &Map<String, Value>, scope: &mut Scope) -> Result<String, String> {
        match &self.uid {
            Source::Nothing => Ok(String::new()),
            Source::Claim(claim, _) => {
                let uid =
                    text_claim(claims, claim).map_err(|words| format!("oidc: parse uid claim {claim:?}: {words}"));
                uid.map(str::to_owned)
            }
            Source::Expression(expression) => text(scope, expression, "uid"),
        }
    }

    fn groups(&self, claims: &Map<String, Value>, scope: &mut Scope) -> Result<Vec<String>, String> {
        match &self.groups {
            Source::Nothing => Ok(Vec::new()),
            Source::Claim(claim, prefix) => {
                let groups = match claims.get(claim) {
                    None => return Ok(Vec::new()),
                    Some(Value::String(one)) => Some(vec![format!("{prefix}{one}")]),
                    Some(Value::Array(several)) => several
                        .iter()
                        .map(|group| group.as_str().map(|group| format!("{prefix}{group}")))
                        .collect::<Option<_>>(),
                    Some(_) => None,
                };
                groups.ok_or_else(|| format!("oidc: parse groups claim {claim:?}: not a string or a list of strings"))
            }
            Source::Expression(expression) => {
                let failed = |words: String| format!("oidc: error evaluating group claim expression: {words}");
                scope.evaluate(expression).and_then(|value| texts(&value)).map_err(failed)
            }
        }
    }

    fn extra(&self, scope: &mut Scope) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        for (key, expression) in &self.extra {
            let source = &expression.source;
            let failed = |words: String| format!("oidc: error evaluating extra claim expression: {source}: {words}");
            let values = scope.evaluate(expression).and_then(|value| texts(&value)).map_err(failed)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}

fn text_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<&'a str, &'static str> {
    claims.get(name).ok_or("claim not present")?.as_str().ok_or("not a string")
}

fn text(scope: &mut Scope, expression: &Expression, what: &str) -> Result<String, String> {
    let failed = |words: String| format!("oidc: error evaluating {what} claim expression: {words}");
    match scope.evaluate(expression).map_err(failed)? {
        Cel::String(text) => Ok(text.to_string()),
        _ => Err(failed(format!("{what} claim expression must return a string"))),
    }
}

/// One text or several; empty ones count for nothing.
fn texts(value: &Cel) -> Result<Vec<String>, String> {
    let one = |value: &Cel| match value {
        Cel::String(text) => Ok(text.to_string()),
        _ => Err(NOT_TEXTS.to_owned()),
    };
    let mut all = match value {
        Cel::Null => Vec::new(),
        Cel::List(list) => list.iter().map(one).collect::<Result<_, _>>()?,
        other => vec![one(other)?],
    };
    all.retain(|text| !text.is_empty());
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::configuration::AuthenticationConfiguration;

    fn mapped(rest: &str, claims: Value) -> Result<UserInfo, String> {
        let text = format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt: \
             [{{issuer: {{url: 'https://a', audiences: [x]}}, {rest}}}]"
        );
        let configuration = AuthenticationConfiguration::parse(&text, &[]).expect("a good configuration");
        Mapper::new(&configuration.jwt[0])?.user(claims.as_object().expect("claims"))
    }

    #[test]
    fn claims_become_a_user() {
        let plain = "claimMappings: {username: {claim: sub, prefix: 'o:'}, groups: {claim: roles, prefix: 'g:'}, uid: {claim: id}}";
        let user = mapped(plain, json!({ "sub": "ann", "roles": ["a", "b"], "id": "7" })).expect("a user");
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), &user.groups[..]),
            ("o:ann", "7", &["g:a".to_owned(), "g:b".to_owned()][..])
        );
        let user = mapped(plain, json!({ "sub": "ann", "roles": "a", "id": "7" })).expect("a user");
        assert_eq!(user.groups, ["g:a"]);

        let spoken = "claimMappings: {username: {expression: 'claims.sub + \"@x\"'}, groups: {expression: 'claims.roles.split(\",\")'}, extra: [{key: example.com/t, valueExpression: 'claims.?t.orValue(\"\")'}]}";
        let user = mapped(spoken, json!({ "sub": "ann", "roles": "a,,b", "t": "blue" })).expect("a user");
        assert_eq!((user.name.as_str(), &user.groups[..]), ("ann@x", &["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(user.extra["example.com/t"], ["blue"]);
    }

    #[test]
    fn what_breaks_a_rule_is_nobody() {
        let name = "claimMappings: {username: {claim: sub, prefix: ''}}";
        let mail = "claimMappings: {username: {claim: email, prefix: ''}}";
        let rules = format!(
            "{name}, claimValidationRules: [{{claim: hd, requiredValue: a}}, {{expression: 'claims.n < 5', message: too much}}], \
             userValidationRules: [{{expression: '!user.username.startsWith(\"system:\")', message: reserved}}]"
        );
        for (configuration, claims, expect) in [
            (name, json!({}), r#"oidc: parse username claims "sub": claim not present"#),
            (name, json!({ "sub": 1 }), r#"oidc: parse username claims "sub": not a string"#),
            (mail, json!({ "email": "a@b", "email_verified": false }), "oidc: email not verified"),
            (&rules, json!({ "sub": "a", "n": 1 }), "oidc: required claim hd not present in ID token"),
            (
                &rules,
                json!({ "sub": "a", "hd": "b", "n": 1 }),
                "oidc: required claim hd value does not match. Got = b, want = a",
            ),
            (
                &rules,
                json!({ "sub": "a", "hd": "a", "n": 9 }),
                "oidc: error evaluating claim validation expression: validation expression 'claims.n < 5' failed: too much",
            ),
            (
                &rules,
                json!({ "sub": "a", "hd": "a" }),
                "oidc: error evaluating claim validation expression: no such key: n",
            ),
            (
                &rules,
                json!({ "sub": "system:admin", "hd": "a", "n": 1 }),
                "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith(\"system:\")' failed: reserved",
            ),
        ] {
            assert_eq!(mapped(configuration, claims.clone()).expect_err("nobody"), expect, "{claims}");
        }
        assert!(mapped(&rules, json!({ "sub": "a", "hd": "a", "n": 1 })).is_ok());
    }
}
