// Package clientgo drives a running cluster with client-go, the library that kubectl, controllers and operators are
// made of: typed clients that speak protobuf, informers that stream their first list, leader election, server-side apply.
//
// tests/tests/e2e_client_go.rs starts the cluster and runs this with KUBECONFIG set.
package clientgo

import (
	"context"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How long something may take to come true, and how often to look. Long, because a busy machine is no failure.
const (
	deadline  = 60 * time.Second
	lookEvery = 50 * time.Millisecond
)

// config is the configuration of the cluster in $KUBECONFIG, in JSON unless the caller says otherwise.
func config(t *testing.T) *rest.Config {
	t.Helper()
	path := os.Getenv("KUBECONFIG")
	if path == "" {
		t.Fatal("KUBECONFIG names no cluster: run this through `cargo test --package minik8s-tests --test e2e_client_go`")
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	ok(t, err)
	// The tests run at once and must not queue behind each other.
	config.QPS, config.Burst = 200, 400
	return config
}

// protobufConfig asks for protobuf and sends it, as controllers in the Kubernetes tree do.
func protobufConfig(t *testing.T) *rest.Config {
	t.Helper()
	config := config(t)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	return config
}

// typed is a typed client that sends protobuf.
func typed(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	client, err := kubernetes.NewForConfig(protobufConfig(t))
	ok(t, err)
	return client
}

// namespace makes a namespace for one test, waits for its ServiceAccount, and removes it afterwards.
func namespace(t *testing.T) string {
	t.Helper()
	client := typed(t)
	made, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "client-go-"},
	}, metav1.CreateOptions{})
	ok(t, err)
	until(t, "the default ServiceAccount", func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().ServiceAccounts(made.Name).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	})
	t.Cleanup(func() {
		// The test's own context is over by now.
		ok(t, client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{}))
	})
	return made.Name
}

// until looks again and again until check is true.
func until(t *testing.T, what string, check wait.ConditionWithContextFunc) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), lookEvery, deadline, true, check); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// ok fails the test on an error.
func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// equal fails the test unless the two are the same.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// to is a pointer to a value, for optional fields.
func to[T any](value T) *T { return &value }

// pod is a Pod of one container that runs a shell line.
func pod(name, line string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: to(int64(1)),
			Containers: []corev1.Container{{
				Name: "main", Image: "busybox:1.36", Command: []string{"sh", "-c", line},
			}},
		},
	}
}

// running waits until a Pod runs.
func running(t *testing.T, client *kubernetes.Clientset, namespace, name string) *corev1.Pod {
	t.Helper()
	var found *corev1.Pod
	until(t, name+" runs", func(ctx context.Context) (bool, error) {
		pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		found = pod
		return err == nil && pod.Status.Phase == corev1.PodRunning, err
	})
	return found
}
