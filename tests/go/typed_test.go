package clientgo

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/watch"
	applyappsv1 "k8s.io/client-go/applyconfigurations/apps/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/retry"
)

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Strategy: appsv1.DeploymentStrategy{
				Type:          appsv1.RollingUpdateDeploymentStrategyType,
				RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: to(intstr.FromString("50%")), MaxUnavailable: to(intstr.FromInt32(1))},
			},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{
					TerminationGracePeriodSeconds: to(int64(1)),
					Containers: []corev1.Container{{
						Name: "web", Image: "nginx:1.27",
						Env:   []corev1.EnvVar{{Name: "ME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}},
						Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
						Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
							corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
						}},
						ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
							HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromString("http")},
						}},
					}},
				},
			},
		},
	}
}

// What a typed client writes in protobuf comes back as it was, defaulted, and rolls out; scaling goes through the
// subresource, a stale update is a conflict, and RetryOnConflict gets through.
func TestDeploymentInProtobuf(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	deployments := client.AppsV1().Deployments(ns)
	made, err := deployments.Create(t.Context(), deployment("web", 2), metav1.CreateOptions{})
	ok(t, err)
	equal(t, "maxSurge", made.Spec.Strategy.RollingUpdate.MaxSurge.String(), "50%")
	equal(t, "maxUnavailable", made.Spec.Strategy.RollingUpdate.MaxUnavailable.IntValue(), 1)
	equal(t, "the defaulted revisionHistoryLimit", *made.Spec.RevisionHistoryLimit, 10)
	container := made.Spec.Template.Spec.Containers[0]
	equal(t, "the port of the probe", container.ReadinessProbe.HTTPGet.Port.String(), "http")
	equal(t, "the request of memory", container.Resources.Requests.Memory().String(), "64Mi")
	equal(t, "the apiVersion of the field", container.Env[0].ValueFrom.FieldRef.APIVersion, "v1")

	available := func(want int32) {
		t.Helper()
		until(t, fmt.Sprintf("%d replicas are available", want), func(ctx context.Context) (bool, error) {
			now, err := deployments.Get(ctx, "web", metav1.GetOptions{})
			return err == nil && now.Status.AvailableReplicas == want && now.Status.ObservedGeneration == now.Generation, err
		})
	}
	available(2)

	ok(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		scale, err := deployments.GetScale(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		equal(t, "the selector of the scale", scale.Status.Selector, "app=web")
		scale.Spec.Replicas = 3
		_, err = deployments.UpdateScale(t.Context(), "web", scale, metav1.UpdateOptions{})
		return err
	}))
	available(3)
	made.Spec.Replicas = to(int32(9))
	if _, err = deployments.Update(t.Context(), made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Fatalf("a stale update must be a conflict, is %v", err)
	}
	ok(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		now, err := deployments.Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		now.Spec.Template.Spec.Containers[0].Image = "nginx:1.28"
		_, err = deployments.Update(t.Context(), now, metav1.UpdateOptions{})
		return err
	}))
	available(3)
	sets, err := client.AppsV1().ReplicaSets(ns).List(t.Context(), metav1.ListOptions{LabelSelector: "app=web"})
	ok(t, err)
	equal(t, "ReplicaSets", len(sets.Items), 2)

	ok(t, deployments.Delete(t.Context(), "web", metav1.DeleteOptions{PropagationPolicy: to(metav1.DeletePropagationForeground)}))
	until(t, "foreground deletion takes the Deployment last", func(ctx context.Context) (bool, error) {
		_, err := deployments.Get(ctx, "web", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return false, err
		}
		sets, err := client.AppsV1().ReplicaSets(ns).List(ctx, metav1.ListOptions{})
		return err == nil && len(sets.Items) == 0, err
	})
}

// Many kinds survive the way there in protobuf and back.
func TestKindsInProtobuf(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	binary := []byte{0, 1, 2, 0xff, 0xfe}
	secret, err := client.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "s-"}, Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{"binary": binary}, StringData: map[string]string{"plain": "words"}, Immutable: to(true),
	}, metav1.CreateOptions{})
	ok(t, err)
	equal(t, "binary data", string(secret.Data["binary"]), string(binary))
	equal(t, "string data", string(secret.Data["plain"]), "words")
	if !strings.HasPrefix(secret.Name, "s-") || len(secret.Name) != 7 {
		t.Fatalf("the generated name is %q", secret.Name)
	}
	secret.Data["plain"] = []byte("other")
	if _, err = client.CoreV1().Secrets(ns).Update(t.Context(), secret, metav1.UpdateOptions{}); !apierrors.IsInvalid(err) {
		t.Fatalf("an immutable Secret must not change: %v", err)
	}

	service, err := client.CoreV1().Services(ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "svc"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"a": "b"}, Type: corev1.ServiceTypeNodePort,
			Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}}},
	}, metav1.CreateOptions{})
	ok(t, err)
	if service.Spec.ClusterIP == "" || service.Spec.Ports[0].NodePort == 0 {
		t.Fatalf("nothing was allocated: %+v", service.Spec)
	}
	equal(t, "the protocol", service.Spec.Ports[0].Protocol, corev1.ProtocolTCP)

	_, err = client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "Not_A_Name"}}, metav1.CreateOptions{})
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "RFC 1123") {
		t.Fatalf("a bad name must be invalid: %v", err)
	}
	_, err = client.CoreV1().ConfigMaps(ns).Get(t.Context(), "absent", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Fatalf("what is not there must not be found: %v", err)
	}
	_, err = client.CoreV1().Services(ns).Create(t.Context(), service, metav1.CreateOptions{})
	if err == nil || !strings.Contains(err.Error(), "resourceVersion should not be set on objects to be created") {
		t.Fatalf("creating an object with a resourceVersion must fail: %v", err)
	}
	service.ResourceVersion = ""
	if _, err = client.CoreV1().Services(ns).Create(t.Context(), service, metav1.CreateOptions{}); err == nil {
		t.Fatal("creating a Service twice must fail")
	}

	dry, err := client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "dry"}},
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	ok(t, err)
	if dry.UID == "" {
		t.Fatal("a dry run answers what would have been")
	}
	_, err = client.CoreV1().ConfigMaps(ns).Get(t.Context(), "dry", metav1.GetOptions{})
	equal(t, "a dry run stores nothing", apierrors.IsNotFound(err), true)
}

// The four types of patches, and typed server-side apply with its conflicts.
func TestPatchesAndApply(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	deployments := client.AppsV1().Deployments(ns)
	_, err := deployments.Create(t.Context(), deployment("web", 0), metav1.CreateOptions{})
	ok(t, err)
	patch := func(kind types.PatchType, text string) *appsv1.Deployment {
		t.Helper()
		patched, err := deployments.Patch(t.Context(), "web", kind, []byte(text), metav1.PatchOptions{FieldManager: "patcher"})
		ok(t, err)
		return patched
	}
	patched := patch(types.JSONPatchType, `[{"op":"test","path":"/metadata/name","value":"web"},{"op":"add","path":"/metadata/annotations","value":{"a":"1"}}]`)
	equal(t, "JSON patch", patched.Annotations["a"], "1")
	patched = patch(types.MergePatchType, `{"metadata":{"annotations":{"a":null,"b":"2"}}}`)
	// The Deployment controller may have put its own annotation beside them.
	_, there := patched.Annotations["a"]
	equal(t, "merge patch, what it removes", there, false)
	equal(t, "merge patch, what it adds", patched.Annotations["b"], "2")
	patched = patch(types.StrategicMergePatchType, `{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"busybox:1.36"}]}}}}`)
	equal(t, "strategic merge patch", len(patched.Spec.Template.Spec.Containers), 2)
	patched = patch(types.ApplyPatchType, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","labels":{"applied":"yes"}}}`)
	equal(t, "apply patch", patched.Labels["applied"], "yes")
	if _, err = deployments.Patch(t.Context(), "web", types.JSONPatchType, []byte(`[{"op":"test","path":"/metadata/name","value":"x"}]`), metav1.PatchOptions{}); err == nil {
		t.Fatal("a failing test of a JSON patch must fail it")
	}

	apply := func(manager string, replicas int32, force bool) (*appsv1.Deployment, error) {
		return deployments.Apply(t.Context(), applyappsv1.Deployment("applied", ns).
			WithSpec(applyappsv1.DeploymentSpec().WithReplicas(replicas).
				WithSelector(applymetav1.LabelSelector().WithMatchLabels(map[string]string{"app": "applied"})).
				WithTemplate(applycorev1.PodTemplateSpec().WithLabels(map[string]string{"app": "applied"}).
					WithSpec(applycorev1.PodSpec().WithContainers(applycorev1.Container().WithName("web").WithImage("nginx:1.27"))))),
			metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	_, err = apply("one", 0, false)
	ok(t, err)
	_, err = apply("two", 1, false)
	if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), `conflict with "one": .spec.replicas`) {
		t.Fatalf("another manager's field must conflict: %v", err)
	}
	applied, err := apply("two", 1, true)
	ok(t, err)
	equal(t, "forced replicas", *applied.Spec.Replicas, 1)

	extracted, err := applyappsv1.ExtractDeployment(applied, "two")
	ok(t, err)
	equal(t, "the fields of two", *extracted.Spec.Replicas, 1)
	theirs, err := applyappsv1.ExtractDeployment(applied, "one")
	ok(t, err)
	if theirs.Spec.Replicas != nil {
		t.Fatal("one has lost the replicas")
	}
}

// Watch, list and pages with the typed client.
func TestWatchAndPages(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	maps := client.CoreV1().ConfigMaps(ns)
	for at := range 7 {
		_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("m-%d", at), Labels: map[string]string{"odd": fmt.Sprint(at%2 == 1)},
		}}, metav1.CreateOptions{})
		ok(t, err)
	}
	options := metav1.ListOptions{Limit: 3, FieldSelector: "metadata.name!=kube-root-ca.crt"}
	var names []string
	for {
		page, err := maps.List(t.Context(), options)
		ok(t, err)
		for _, item := range page.Items {
			names = append(names, item.Name)
		}
		if options.Continue = page.Continue; page.Continue == "" {
			break
		}
	}
	equal(t, "all pages", strings.Join(names, " "), "m-0 m-1 m-2 m-3 m-4 m-5 m-6")

	list, err := maps.List(t.Context(), metav1.ListOptions{LabelSelector: "odd in (true)"})
	ok(t, err)
	equal(t, "odd ones", len(list.Items), 3)
	watcher, err := maps.Watch(t.Context(), metav1.ListOptions{LabelSelector: "odd=true", ResourceVersion: list.ResourceVersion, AllowWatchBookmarks: true})
	ok(t, err)
	defer watcher.Stop()
	first := list.Items[0]
	first.Data = map[string]string{"new": "data"}
	_, err = maps.Update(t.Context(), &first, metav1.UpdateOptions{})
	ok(t, err)
	_, err = maps.Patch(t.Context(), "m-3", types.MergePatchType, []byte(`{"metadata":{"labels":{"odd":"false"}}}`), metav1.PatchOptions{})
	ok(t, err)
	ok(t, maps.DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "odd=true"}))
	want := []string{"MODIFIED m-1", "DELETED m-3", "DELETED m-1", "DELETED m-5"}
	seen := map[string]bool{}
	for len(seen) < len(want) {
		event, open := <-watcher.ResultChan()
		if !open {
			t.Fatalf("the watch ended after %v", seen)
		}
		if event.Type == watch.Bookmark {
			continue
		}
		item, isMap := event.Object.(*corev1.ConfigMap)
		if !isMap {
			t.Fatalf("%s of %T: %v", event.Type, event.Object, event.Object)
		}
		seen[string(event.Type)+" "+item.Name] = true
	}
	for _, one := range want {
		if !seen[one] {
			t.Fatalf("%s is not among %v", one, seen)
		}
	}
}

// Logs, exec over WebSocket, ephemeral Pod subresources.
func TestPodSubresources(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	pods := client.CoreV1().Pods(ns)
	_, err := pods.Create(t.Context(), pod("talker", "echo hello; echo again; sleep 3600"), metav1.CreateOptions{})
	ok(t, err)
	running(t, client, ns, "talker")

	until(t, "the log has two lines", func(ctx context.Context) (bool, error) {
		log, err := pods.GetLogs("talker", &corev1.PodLogOptions{Container: "main"}).DoRaw(ctx)
		return string(log) == "hello\nagain\n", err
	})
	stream, err := pods.GetLogs("talker", &corev1.PodLogOptions{Follow: true, TailLines: to(int64(1))}).Stream(t.Context())
	ok(t, err)
	last := make([]byte, len("again\n"))
	_, err = io.ReadFull(stream, last)
	ok(t, err)
	ok(t, stream.Close())
	equal(t, "the followed line", string(last), "again\n")

	stdout, err := exec(t, client, ns, "talker", "from standard input", "cat")
	ok(t, err)
	equal(t, "what cat echoes", stdout, "from standard input")
	_, err = exec(t, client, ns, "talker", "", "sh", "-c", "exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit code 3") {
		t.Fatalf("the exit code must come back: %v", err)
	}
}

func exec(t *testing.T, client *kubernetes.Clientset, namespace, name, input string, command ...string) (string, error) {
	t.Helper()
	request := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(name).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdin: input != "", Stdout: true, Stderr: true}, scheme.ParameterCodec)
	options := remotecommand.StreamOptions{Stdout: &bytes.Buffer{}, Stderr: io.Discard}
	if input != "" {
		options.Stdin = strings.NewReader(input)
	}
	executor, err := remotecommand.NewWebSocketExecutor(config(t), "GET", request.URL().String())
	ok(t, err)
	err = executor.StreamWithContext(t.Context(), options)
	return options.Stdout.(*bytes.Buffer).String(), err
}

// Eviction asks the disruption budget.
func TestEviction(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	_, err := client.CoreV1().Pods(ns).Create(t.Context(), pod("kept", "sleep 3600"), metav1.CreateOptions{})
	ok(t, err)
	running(t, client, ns, "kept")
	budgets := client.PolicyV1().PodDisruptionBudgets(ns)
	_, err = budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "kept"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: to(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "kept"}},
		},
	}, metav1.CreateOptions{})
	ok(t, err)
	until(t, "the budget counts the Pod", func(ctx context.Context) (bool, error) {
		budget, err := budgets.Get(ctx, "kept", metav1.GetOptions{})
		return err == nil && budget.Status.CurrentHealthy == 1 && budget.Status.ObservedGeneration == budget.Generation, err
	})
	eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "kept", Namespace: ns}}
	err = client.PolicyV1().Evictions(ns).Evict(t.Context(), eviction)
	if !apierrors.IsTooManyRequests(err) || !strings.Contains(err.Error(), "disruption budget") {
		t.Fatalf("the budget must refuse: %v", err)
	}
	ok(t, budgets.Delete(t.Context(), "kept", metav1.DeleteOptions{}))
	until(t, "without the budget it is evicted", func(ctx context.Context) (bool, error) {
		err := client.PolicyV1().Evictions(ns).Evict(ctx, eviction)
		if apierrors.IsTooManyRequests(err) {
			return false, nil
		}
		return apierrors.IsNotFound(err), ignoreNotFound(err)
	})
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// A requested token speaks for its ServiceAccount, and RBAC decides what that may do.
func TestTokensAndReviews(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	request, err := client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: to(int64(3600))},
	}, metav1.CreateOptions{})
	ok(t, err)
	if request.Status.Token == "" || request.Status.ExpirationTimestamp.IsZero() {
		t.Fatalf("no token: %+v", request.Status)
	}
	bearer := rest.AnonymousClientConfig(protobufConfig(t))
	bearer.BearerToken = request.Status.Token
	own, err := kubernetes.NewForConfig(bearer)
	ok(t, err)
	account := "system:serviceaccount:" + ns + ":default"
	who, err := own.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	ok(t, err)
	equal(t, "who the token speaks for", who.Status.UserInfo.Username, account)
	_, err = own.CoreV1().Secrets(ns).List(t.Context(), metav1.ListOptions{})
	want := fmt.Sprintf(`secrets is forbidden: User "%s" cannot list resource "secrets" in API group "" in the namespace "%s"`, account, ns)
	if !apierrors.IsForbidden(err) || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: request.Status.Token},
	}, metav1.CreateOptions{})
	ok(t, err)
	equal(t, "the review of the token", review.Status.User.Username, account)
	access, err := client.AuthorizationV1().SelfSubjectAccessReviews().Create(t.Context(), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: "delete", Resource: "nodes"}},
	}, metav1.CreateOptions{})
	ok(t, err)
	equal(t, "the administrator may", access.Status.Allowed, true)

	impersonating := config(t)
	impersonating.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"developers"}}
	jane, err := kubernetes.NewForConfig(impersonating)
	ok(t, err)
	_, err = jane.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `User "jane"`) {
		t.Fatalf("jane must be refused: %v", err)
	}
}

// The scale of kinds that no typed client knows is an autoscaling/v1 Scale in protobuf too.
func TestScaleOfReplicaSet(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	template := deployment("rs", 0).Spec
	_, err := client.AppsV1().ReplicaSets(ns).Create(t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "rs"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: to(int32(0)), Selector: template.Selector, Template: template.Template},
	}, metav1.CreateOptions{})
	ok(t, err)
	scale, err := client.AppsV1().ReplicaSets(ns).UpdateScale(t.Context(), "rs", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: "rs", Namespace: ns}, Spec: autoscalingv1.ScaleSpec{Replicas: 1},
	}, metav1.UpdateOptions{})
	ok(t, err)
	equal(t, "replicas asked for", scale.Spec.Replicas, 1)
	until(t, "one replica runs", func(ctx context.Context) (bool, error) {
		set, err := client.AppsV1().ReplicaSets(ns).Get(ctx, "rs", metav1.GetOptions{})
		return err == nil && set.Status.ReadyReplicas == 1, err
	})
}
