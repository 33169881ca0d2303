//! Controllers that each keep one field true.

use minik8s_tests::Cluster;

const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: few
spec:
  matchConstraints:
    resourceRules:
    - apiGroups: [apps]
      apiVersions: [v1]
      operations: [CREATE]
      resources: [deployments]
  validations:
  - expression: object.replicas > 1
";

fn policies_are_type_checked(cluster: &Cluster) {
    cluster.apply(POLICY);
    let warning = "get validatingadmissionpolicy few -o jsonpath={.status.typeChecking.expressionWarnings[0].warning}";
    cluster.until_shows(warning, "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'");
    cluster.apply(&POLICY.replace("object.replicas", "object.spec.replicas"));
    cluster.until_is("get validatingadmissionpolicy few -o jsonpath={.status.observedGeneration}", "2");
    cluster.until_is(warning, "");
}

fn nodes_are_told_how_long_to_keep_what_they_read(cluster: &Cluster) {
    cluster.until_is(r"get nodes -o jsonpath='{.items[0].metadata.annotations.node\.alpha\.kubernetes\.io/ttl}'", "0");
}

fn service_blocks_are_ready_and_go_when_nobody_needs_them(cluster: &Cluster) {
    let block = "
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata:
  name: more
spec:
  cidrs: [10.200.0.0/24]
";
    cluster.until_is(
        "get servicecidr kubernetes -o jsonpath={.status.conditions[0].type}={.status.conditions[0].status}",
        "Ready=True",
    );
    cluster.apply(block);
    let condition = "get servicecidr more -o jsonpath={.status.conditions[0].status}:{.status.conditions[0].message}";
    cluster.until_is(condition, "True:Kubernetes Service CIDR is ready");
    cluster.until_is(
        "get servicecidr more -o jsonpath={.metadata.finalizers[0]}",
        "networking.k8s.io/service-cidr-finalizer",
    );
    let address = "
apiVersion: networking.k8s.io/v1
kind: IPAddress
metadata:
  name: 10.200.0.7
  labels: {ipaddress.kubernetes.io/managed-by: ipallocator.k8s.io, ipaddress.kubernetes.io/ip-family: IPv4}
spec:
  parentRef: {resource: services, namespace: default, name: held}
";
    cluster.apply(address);
    cluster.kubectl("delete servicecidr more --wait=false").ok();
    let message =
        "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
    cluster.until_is(condition, &format!("False:{message}"));
    cluster.kubectl("delete ipaddress 10.200.0.7").ok();
    cluster.until("the block goes", || {
        let there = cluster.kubectl("get servicecidr more");
        if there.code == 0 { Err(there.to_string()) } else { Ok(()) }
    });
}

#[test]
fn small_controllers_do_their_part() {
    let cluster = Cluster::start(&[]);
    policies_are_type_checked(&cluster);
    nodes_are_told_how_long_to_keep_what_they_read(&cluster);
    service_blocks_are_ready_and_go_when_nobody_needs_them(&cluster);
}
