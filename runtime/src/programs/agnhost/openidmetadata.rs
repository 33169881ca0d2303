//! `test-service-account-issuer-discovery`: checks a service account's token by what its issuer publishes (OpenID Connect
//! Discovery 1.0).

use super::Call;
use super::flags::Flag;
use super::in_cluster::InCluster;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::Value;
use std::sync::Arc;

pub(super) const FLAGS: &[Flag] = &[
    Flag::string("token-path", "", "Path to read service account token from."),
    Flag::string("audience", "", "Audience to check on received token."),
];

/// A JSON Web Token in its parts.
struct Token {
    header: Value,
    claims: Value,
    signed: String,
    signature: Vec<u8>,
}

impl Token {
    fn parse(text: &str) -> Option<Token> {
        let (signed, signature) = text.trim().rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Token {
            header: serde_json::from_slice(&decode(header)?).ok()?,
            claims: serde_json::from_slice(&decode(claims)?).ok()?,
            signed: signed.to_string(),
            signature: decode(signature)?,
        })
    }

    fn issuer(&self) -> &str {
        self.claims["iss"].as_str().unwrap_or_default()
    }

    fn is_for(&self, audience: &str) -> bool {
        match &self.claims["aud"] {
            Value::Array(audiences) => audiences.iter().any(|known| known == audience),
            one => one == audience,
        }
    }

    /// Whether a key (RFC 7517) has made its signature.
    fn is_signed_by(&self, key: &Value) -> bool {
        let part = |name: &str| key[name].as_str().and_then(decode).unwrap_or_default();
        let signed = self.signed.as_bytes();
        let elliptic = |algorithm: &'static dyn VerificationAlgorithm| {
            let point = [vec![4], part("x"), part("y")].concat();
            UnparsedPublicKey::new(algorithm, point).verify(signed, &self.signature).is_ok()
        };
        match self.header["alg"].as_str() {
            Some("RS256") => {
                let public = RsaPublicKeyComponents { n: part("n"), e: part("e") };
                public.verify(&RSA_PKCS1_2048_8192_SHA256, signed, &self.signature).is_ok()
            }
            Some("ES256") => elliptic(&ECDSA_P256_SHA256_FIXED),
            Some("ES384") => elliptic(&ECDSA_P384_SHA384_FIXED),
            _ => false,
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Checks once.
pub(super) async fn run(call: Arc<Call>) -> i32 {
    let path = call.flags.text("token-path");
    let text = match call.world.read_text(&call.path(path)) {
        Ok(text) => text,
        Err(error) => return call.fatal(super::go_format::path_error("open", path, &error)).await,
    };
    call.log("OK: Got token").await;
    call.log("validating with in-cluster discovery").await;
    let cluster = match InCluster::of(&call) {
        Ok(cluster) => cluster,
        Err(error) => return call.fatal(error).await,
    };
    let Some(token) = Token::parse(&text) else {
        return call.fatal("go-jose/go-jose: compact JWS format must have three parts").await;
    };
    call.log(format!("OK: got issuer {}", token.issuer())).await;
    call.log(format!("Full, not-validated claims: \n{}", token.claims)).await;
    match validate(&call, &cluster, &token).await {
        Ok(()) => {
            call.log("OK: Got valid claims from token!").await;
            call.log(format!("Full, validated claims: \n{}", token.claims)).await;
            0
        }
        // Issuers outside of the cluster, which the real one asks next, are not simulated.
        Err(error) => call.fatal(format!("failed to validate with in-cluster discovery: {error}")).await,
    }
}

async fn validate(call: &Call, cluster: &InCluster, token: &Token) -> Result<(), String> {
    let issuer = token.issuer();
    let discovery =
        fetch(cluster, &format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))).await?;
    let published = discovery["issuer"].as_str().unwrap_or_default();
    if published != issuer {
        let reason = "oidc: issuer did not match the issuer returned by provider";
        return Err(format!("{reason}, expected {issuer:?} got {published:?}"));
    }
    call.log(format!("OK: Constructed OIDC provider for issuer {issuer}")).await;
    let audience = call.flags.text("audience");
    if !token.is_for(audience) {
        return Err(format!("oidc: expected audience {audience:?} got {}", token.claims["aud"]));
    }
    let expires = token.claims["exp"].as_f64().unwrap_or_default();
    if (call.world.clock.now().as_second() as f64) > expires {
        return Err(format!("oidc: token is expired (Token Expiry: {expires})"));
    }
    let algorithm = token.header["alg"].as_str().unwrap_or_default();
    if !matches!(algorithm, "RS256" | "ES256" | "ES384") {
        return Err(format!("oidc: id token signed with unsupported algorithm, got {algorithm:?}"));
    }
    let keys = fetch(cluster, discovery["jwks_uri"].as_str().unwrap_or_default()).await?;
    let keys = keys["keys"].as_array().cloned().unwrap_or_default();
    let id = &token.header["kid"];
    let candidates = keys.iter().filter(|key| id.as_str().unwrap_or_default().is_empty() || &key["kid"] == id);
    if !candidates.into_iter().any(|key| token.is_signed_by(key)) {
        return Err("failed to verify signature: failed to verify id token signature".to_string());
    }
    call.log("OK: Validated signature on JWT").await;
    Ok(())
}

async fn fetch(cluster: &InCluster, url: &str) -> Result<Value, String> {
    let answer = cluster.get(url).await?;
    if !answer.status.is_success() {
        return Err(format!("{}: {}", answer.status, answer.text()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("failed to decode {url}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The example of RFC 7515, appendix A.3.
    #[test]
    fn a_signature_is_verified_with_the_published_key() {
        let text = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
                    DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
        let token = Token::parse(text).expect("a token");
        assert_eq!(token.issuer(), "joe");
        let key = json!({
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
        });
        assert!(token.is_signed_by(&key));
        let other = json!({ "x": key["y"], "y": key["x"] });
        assert!(!token.is_signed_by(&other));
    }
}
