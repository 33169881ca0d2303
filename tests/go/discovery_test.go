package clientgo

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/version"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/util/retry"
)

// Discovery in its plain and its aggregated form names the same, and the OpenAPI documents cover it.
func TestDiscoveryAndOpenAPI(t *testing.T) {
	t.Parallel()
	client, err := discovery.NewDiscoveryClientForConfig(config(t))
	ok(t, err)
	info, err := client.ServerVersion()
	ok(t, err)
	equal(t, "the version", info.Major+"."+info.Minor, "1.37")
	parsedVersion, err := version.ParseGeneric(info.GitVersion)
	ok(t, err)
	equal(t, "the minor version", parsedVersion.Minor(), 37)

	names := func(client discovery.DiscoveryInterface) map[string]bool {
		t.Helper()
		_, lists, err := client.ServerGroupsAndResources()
		ok(t, err)
		found := map[string]bool{}
		for _, list := range lists {
			for _, resource := range list.APIResources {
				found[list.GroupVersion+" "+resource.Name+" "+resource.Kind] = true
			}
		}
		return found
	}
	aggregated, plain := names(client), names(client.WithLegacy())
	for _, name := range []string{"v1 pods Pod", "v1 pods/exec PodExecOptions", "apps/v1 deployments/scale Scale", "coordination.k8s.io/v1 leases Lease"} {
		if !aggregated[name] || !plain[name] {
			t.Fatalf("%s: aggregated %v, plain %v", name, aggregated[name], plain[name])
		}
	}
	equal(t, "resources in plain discovery", len(plain), len(aggregated))

	paths, err := client.OpenAPIV3().Paths()
	ok(t, err)
	document, err := paths["apis/apps/v1"].Schema("application/json")
	ok(t, err)
	var parsed struct {
		Components struct {
			Schemas map[string]any `json:"schemas"`
		} `json:"components"`
		Paths map[string]any `json:"paths"`
	}
	ok(t, json.Unmarshal(document, &parsed))
	if parsed.Components.Schemas["io.k8s.api.apps.v1.Deployment"] == nil || parsed.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"] == nil {
		t.Fatal("the OpenAPI v3 document of apps/v1 lacks Deployments")
	}
	// Version 2 in protobuf.
	second, err := client.OpenAPISchema()
	ok(t, err)
	equal(t, "the version of OpenAPI", second.GetSwagger(), "2.0")
	var found bool
	for _, definition := range second.GetDefinitions().GetAdditionalProperties() {
		if definition.GetName() != "io.k8s.api.core.v1.PodSpec" {
			continue
		}
		found = true
		for _, property := range definition.GetValue().GetProperties().GetAdditionalProperties() {
			if property.GetName() == "containers" {
				equal(t, "the type of containers", property.GetValue().GetType().GetValue()[0], "array")
				reference := property.GetValue().GetItems().GetSchema()[0].GetXRef()
				equal(t, "the type of one", reference, "#/definitions/io.k8s.api.core.v1.Container")
			}
		}
	}
	equal(t, "PodSpec is defined", found, true)
	for _, path := range second.GetPaths().GetPath() {
		if path.GetName() == "/api/v1/namespaces/{namespace}/pods/{name}" {
			get := path.GetValue().GetGet()
			equal(t, "the operation", get.GetOperationId(), "readCoreV1NamespacedPod")
			response := get.GetResponses().GetResponseCode()[0]
			equal(t, "the code of its response", response.GetName(), "200")
			schema := response.GetValue().GetResponse().GetSchema().GetSchema()
			equal(t, "the type of its response", schema.GetXRef(), "#/definitions/io.k8s.api.core.v1.Pod")
		}
	}
	// What extracts the applied configurations of untyped objects learns from this document which lists have keys.
	extractor, err := applymetav1.NewUnstructuredExtractor(client)
	ok(t, err)
	object := &unstructured.Unstructured{}
	ok(t, object.UnmarshalJSON([]byte(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","managedFields":[{"manager":"m",
		"operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1",
		"fieldsV1":{"f:spec":{"f:containers":{"k:{\"name\":\"two\"}":{".":{},"f:name":{},"f:image":{}}}}}}]},
		"spec":{"containers":[{"name":"one","image":"a"},{"name":"two","image":"b"}]}}`)))
	extracted, err := extractor.Extract(object, "m")
	ok(t, err)
	containers, _, err := unstructured.NestedSlice(extracted.Object, "spec", "containers")
	ok(t, err)
	equal(t, "the containers of m", len(containers), 1)
	equal(t, "the name of the one", fmt.Sprint(containers[0].(map[string]any)["name"]), "two")
}

// A RESTMapper finds kinds by short name and back, and the dynamic and the polymorphic scale client work on them.
func TestDynamicClient(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	found, err := discovery.NewDiscoveryClientForConfig(config(t))
	ok(t, err)
	cached := memory.NewMemCacheClient(found)
	mapper := restmapper.NewShortcutExpander(restmapper.NewDeferredDiscoveryRESTMapper(cached), cached, nil)
	deployments, err := mapper.ResourceFor(schema.GroupVersionResource{Resource: "deploy"})
	ok(t, err)
	equal(t, "deploy", deployments, schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"})
	mapping, err := mapper.RESTMapping(schema.GroupKind{Group: "batch", Kind: "CronJob"})
	ok(t, err)
	equal(t, "CronJob", mapping.Resource.Resource, "cronjobs")
	equal(t, "the scope of CronJob", mapping.Scope.Name(), meta.RESTScopeNameNamespace)
	if _, err = mapper.RESTMapping(schema.GroupKind{Group: "example.com", Kind: "Nothing"}); !meta.IsNoMatchError(err) {
		t.Fatalf("a kind that is not served must not match: %v", err)
	}

	client, err := dynamic.NewForConfig(config(t))
	ok(t, err)
	object := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "dyn"},
		"spec": map[string]any{
			"replicas": int64(0), "selector": map[string]any{"matchLabels": map[string]any{"app": "dyn"}},
			"template": map[string]any{
				"metadata": map[string]any{"labels": map[string]any{"app": "dyn"}},
				"spec":     map[string]any{"containers": []any{map[string]any{"name": "web", "image": "nginx:1.27"}}},
			},
		},
	}}
	resource := client.Resource(deployments).Namespace(ns)
	made, err := resource.Create(t.Context(), object, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	ok(t, err)
	policy, _, err := unstructured.NestedString(made.Object, "spec", "template", "spec", "restartPolicy")
	ok(t, err)
	equal(t, "the defaulted restartPolicy", policy, "Always")
	wrong := object.DeepCopy()
	wrong.SetName("wrong")
	ok(t, unstructured.SetNestedField(wrong.Object, "x", "spec", "replica"))
	_, err = resource.Create(t.Context(), wrong, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `strict decoding error: unknown field "spec.replica"`) {
		t.Fatalf("strict validation must refuse: %v", err)
	}
	applied, err := resource.Apply(t.Context(), "dyn", &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "dyn", "annotations": map[string]any{"by": "apply"}},
	}}, metav1.ApplyOptions{FieldManager: "dynamic"})
	ok(t, err)
	equal(t, "the applied annotation", applied.GetAnnotations()["by"], "apply")
	_, err = resource.Patch(t.Context(), "dyn", types.MergePatchType, []byte(`{"status":{"replicas":5}}`), metav1.PatchOptions{}, "status")
	ok(t, err)

	scales, err := scale.NewForConfig(config(t), mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(found))
	ok(t, err)
	ok(t, retry.RetryOnConflict(retry.DefaultRetry, func() error {
		current, err := scales.Scales(ns).Get(t.Context(), deployments.GroupResource(), "dyn", metav1.GetOptions{})
		if err != nil {
			return err
		}
		current.Spec.Replicas = 1
		_, err = scales.Scales(ns).Update(t.Context(), deployments.GroupResource(), current, metav1.UpdateOptions{})
		return err
	}))
	until(t, "the scaled Deployment has a replica", func(ctx context.Context) (bool, error) {
		now, err := resource.Get(ctx, "dyn", metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		ready, _, err := unstructured.NestedInt64(now.Object, "status", "readyReplicas")
		return ready == 1, err
	})
	ok(t, resource.Delete(t.Context(), "dyn", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(made.GetUID()))}))
}
