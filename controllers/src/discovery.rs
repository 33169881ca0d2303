//! What the API serves, asked of the API itself: for controllers that look after every kind there is.

use kube::client::Client;
use serde::Deserialize;

/// A resource that can be listed, watched and deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// `apps/v1`, or `v1`.
    pub api_version: String,
    /// `deployments`.
    pub plural: String,
    /// `Deployment`.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether a collection can be deleted in one request.
    pub deletes_collections: bool,
}

impl Resource {
    /// The group, empty for the core one.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// `deployments.apps`, as messages show it.
    pub fn group_resource(&self) -> String {
        match self.group() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }

    /// The path of all its objects, or of those of one namespace.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{}/namespaces/{namespace}/{}", self.api_version, self.plural),
            None => format!("{root}/{}/{}", self.api_version, self.plural),
        }
    }
}

#[derive(Deserialize)]
struct Groups {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Name {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Served>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    resource: String,
    #[serde(default)]
    response_kind: Kind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

/// What is served, as far as all servers behind the API have said so lately.
#[derive(Debug, Default)]
pub struct Discovered {
    /// What there is.
    pub resources: Vec<Resource>,
    /// Versions (`metrics.k8s.io/v1beta1`) whose server does not answer: there may be more of them, or less.
    pub stale: Vec<String>,
}

impl Discovered {
    /// Why not all is known, in client-go's words (`discovery/aggregated_discovery.go`); `None` if all is.
    pub fn failure(&self) -> Option<String> {
        let each = |version: &String| format!("{version}: stale GroupVersion discovery: {version}");
        let failed: Vec<String> = self.stale.iter().map(each).collect();
        let why = "unable to retrieve the complete list of server APIs";
        (!failed.is_empty()).then(|| format!("{why}: {}", failed.join(", ")))
    }
}

/// All deletable resources, each in its group's preferred version. Events are left out: nobody owns them, and they go
/// by themselves.
pub async fn deletable(client: &Client) -> Result<Discovered, kube::Error> {
    let mut found = Discovered::default();
    for root in ["/api", "/apis"] {
        let request = http::Request::get(root)
            .header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        let groups: Groups = client.request(request).await?;
        for group in groups.items {
            let mut seen: Vec<String> = Vec::new();
            for version in group.versions {
                let api_version = match group.metadata.name.as_str() {
                    "" => version.version.clone(),
                    name => format!("{name}/{}", version.version),
                };
                if version.freshness == "Stale" {
                    found.stale.push(api_version.clone());
                }
                for served in version.resources {
                    let can = |verb: &str| served.verbs.iter().any(|own| own == verb);
                    let all = ["list", "watch", "delete"].into_iter().all(can);
                    if !all || served.resource == "events" || seen.contains(&served.resource) {
                        continue;
                    }
                    seen.push(served.resource.clone());
                    found.resources.push(Resource {
                        deletes_collections: can("deletecollection"),
                        namespaced: served.scope == "Namespaced",
                        kind: served.response_kind.kind,
                        plural: served.resource,
                        api_version: api_version.clone(),
                    });
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_answer_is_told_in_client_gos_words() {
        assert_eq!(Discovered::default().failure(), None);
        let stale = vec!["metrics.k8s.io/v1beta1".to_owned(), "a.io/v1".to_owned()];
        let words = "unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1, a.io/v1: stale GroupVersion discovery: a.io/v1";
        assert_eq!(Discovered { stale, ..Discovered::default() }.failure().as_deref(), Some(words));
    }
}
