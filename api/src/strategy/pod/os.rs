//! What a pod may say depends on the system it says it is for.
//! `pkg/apis/core/validation/validation.go` `validateLinux`, `validateWindows`, `validateWindowsHostProcessPod`.
use crate::strategy::field::{Errors, Field};
use crate::strategy::names;

const CREDENTIAL_SPEC_MAX_KIB: usize = 64;
const DOMAIN_MAX: usize = 256;
const USER_MAX: usize = 104;

/// Members of a pod's security context that Windows has no use for.
const POD_CONTEXT: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
/// The same of a container.
const CONTAINER_CONTEXT: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

/// What is wrong with `os`, and with what is set for another system than it names.
pub fn validate(spec: &Field<'_>, errors: &mut Errors) {
    let Some(os) = spec.get("os").set() else { return };
    let name = os.get("name");
    match name.str() {
        "" => errors.push(name.required("")),
        "linux" => linux(spec, errors),
        "windows" => windows(spec, errors),
        _ => errors.push(os.with(name.value()).not_supported(&["linux", "windows"])),
    }
}

fn containers<'a>(spec: &Field<'a>) -> impl Iterator<Item = Field<'a>> + use<'a> {
    let lists = ["initContainers", "containers", "ephemeralContainers"].map(|list| spec.get(list));
    lists.into_iter().flat_map(|list| list.items())
}

fn linux(spec: &Field<'_>, errors: &mut Errors) {
    let contexts = std::iter::once(spec.clone()).chain(containers(spec)).map(|of| of.get("securityContext"));
    for options in contexts.map(|context| context.get("windowsOptions")).filter(Field::is_set) {
        errors.push(options.forbidden("windows options cannot be set for a linux pod"));
    }
}

fn windows(spec: &Field<'_>, errors: &mut Errors) {
    const CANNOT: &str = "cannot be set for a windows pod";
    let context = spec.get("securityContext");
    for name in POD_CONTEXT {
        let field = context.get(name);
        let told = if name == "sysctls" { !field.is_empty() } else { field.is_set() };
        if told {
            errors.push(field.forbidden(CANNOT));
        }
    }
    for name in ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"] {
        let field = spec.get(name);
        let told = if matches!(name, "hostPID" | "hostIPC") { field.bool() } else { field.is_set() };
        if told {
            errors.push(field.forbidden(CANNOT));
        }
    }
    for context in containers(spec).map(|container| container.get("securityContext")) {
        for field in CONTAINER_CONTEXT.map(|name| context.get(name)).into_iter().filter(Field::is_set) {
            errors.push(field.forbidden(CANNOT));
        }
    }
}

fn host_process<'a>(of: &Field<'a>) -> Field<'a> {
    of.get("securityContext").get("windowsOptions").get("hostProcess")
}

/// Containers that are processes of the host: all of a pod, or none.
pub fn validate_host_process(spec: &Field<'_>, errors: &mut Errors) {
    let of_pod = host_process(spec).value().as_bool();
    let (mut all, mut of_host) = (0, 0);
    for own in containers(spec).map(|container| host_process(&container)) {
        let of_container = own.value().as_bool();
        all += 1;
        if let Some((pod, container)) = of_pod.zip(of_container).filter(|(pod, container)| pod != container) {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.push(own.invalid_as(container, detail));
        }
        of_host += u32::from(of_container.or(of_pod) == Some(true));
    }
    if of_host == 0 {
        return;
    }
    if of_host != all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(spec.invalid_as("", detail));
    }
    let network = spec.get("hostNetwork");
    if !network.bool() {
        errors.push(network.invalid_as(false, "hostNetwork must be true if pod contains any hostProcess containers"));
    }
}

/// What is wrong with `windowsOptions`.
pub fn validate_windows_options(options: &Field<'_>, errors: &mut Errors) {
    if let Some(name) = options.get("gmsaCredentialSpecName").set() {
        name.check(names::dns1123_subdomain(name.str()), errors);
    }
    if let Some(credentials) = options.get("gmsaCredentialSpec").set() {
        if credentials.is_empty() {
            errors.push(credentials.invalid("gmsaCredentialSpec cannot be an empty string"));
        } else if credentials.len() > CREDENTIAL_SPEC_MAX_KIB * 1024 {
            let detail = format!("gmsaCredentialSpec size must be under {CREDENTIAL_SPEC_MAX_KIB} KiB");
            errors.push(credentials.invalid(detail));
        }
    }
    if let Some(user) = options.get("runAsUserName").set() {
        user_name(&user, errors);
    }
}

/// `DOMAIN\user`, where the domain may be left out.
fn user_name(name: &Field<'_>, errors: &mut Errors) {
    let parts: Vec<&str> = name.str().split('\\').collect();
    let (domain, user) = match parts[..] {
        [""] => return errors.push(name.invalid("runAsUserName cannot be an empty string")),
        _ if name.str().bytes().any(|byte| byte.is_ascii_control()) => {
            return errors.push(name.invalid("runAsUserName cannot contain control characters"));
        }
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return errors.push(name.invalid("runAsUserName cannot contain more than one backslash")),
    };
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_MAX) {
        let detail = format!("runAsUserName's Domain length must be under {DOMAIN_MAX} characters");
        errors.push(name.invalid(detail));
    }
    if domain.is_some_and(|domain| !is_netbios_name(domain) && !is_dns_name(domain)) {
        errors.push(name.invalid("runAsUserName's Domain doesn't match the NetBios nor the DNS format"));
    }
    if user.is_empty() {
        errors.push(name.invalid("runAsUserName's User cannot be empty"));
    } else if user.len() > USER_MAX {
        let detail = format!("runAsUserName's User length must not be longer than {USER_MAX} characters");
        errors.push(name.invalid(detail));
    }
    if !user.is_empty() && user.chars().all(|c| matches!(c, '.' | ' ')) {
        errors.push(name.invalid("runAsUserName's User cannot contain only periods or spaces"));
    }
    if user.contains(['"', '/', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        let detail = "runAsUserName's User cannot contain the following characters: \"/\\:;|=,+*?<>@[]";
        errors.push(name.invalid(detail));
    }
}

fn is_netbios_name(domain: &str) -> bool {
    (1..=15).contains(&domain.chars().count())
        && !domain.starts_with('.')
        && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|'])
}

fn is_dns_name(domain: &str) -> bool {
    domain.split('.').all(|label| {
        let ends = label.bytes().next().zip(label.bytes().last());
        label.len() <= 63
            && ends.is_some_and(|(first, last)| first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    })
}
