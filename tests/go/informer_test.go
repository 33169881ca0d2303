package clientgo

import (
	"context"
	"fmt"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
)

// await takes the events of an informer until all that are wanted have come.
func await(t *testing.T, events <-chan string, want ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, one := range want {
		missing[one] = true
	}
	timeout := time.After(deadline)
	for len(missing) > 0 {
		select {
		case event := <-events:
			delete(missing, event)
		case <-timeout:
			t.Fatalf("never came: %v", missing)
		}
	}
}

// handler writes an informer's events as words.
func handler(events chan<- string) cache.ResourceEventHandler {
	name := func(object any) string {
		key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(object)
		if err != nil {
			return err.Error()
		}
		_, name, _ := cache.SplitMetaNamespaceKey(key)
		return name
	}
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc:    func(object any, first bool) { events <- fmt.Sprintf("added %s %v", name(object), first) },
		UpdateFunc: func(_, object any) { events <- "updated " + name(object) },
		DeleteFunc: func(object any) { events <- "deleted " + name(object) },
	}
}

// A shared informer streams its first list (KEP-3157), then sees every change; a metadata informer sees the same.
func TestInformers(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	maps := client.CoreV1().ConfigMaps(ns)
	_, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "before"}}, metav1.CreateOptions{})
	ok(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(ns))
	informer, lister := factory.Core().V1().ConfigMaps().Informer(), factory.Core().V1().ConfigMaps().Lister()
	typedEvents, metadataEvents := make(chan string, 100), make(chan string, 100)
	_, err = informer.AddEventHandler(handler(typedEvents))
	ok(t, err)
	light, err := metadata.NewForConfig(config(t))
	ok(t, err)
	lightFactory := metadatainformer.NewFilteredSharedInformerFactory(light, 0, ns, nil)
	lightInformer := lightFactory.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	_, err = lightInformer.Informer().AddEventHandler(handler(metadataEvents))
	ok(t, err)
	factory.Start(ctx.Done())
	lightFactory.Start(ctx.Done())
	syncing, stop := context.WithTimeout(ctx, deadline)
	defer stop()
	for kind, synced := range factory.WaitForCacheSync(syncing.Done()) {
		equal(t, fmt.Sprint(kind, " is synced"), synced, true)
	}
	for kind, synced := range lightFactory.WaitForCacheSync(syncing.Done()) {
		equal(t, fmt.Sprint(kind, " metadata is synced"), synced, true)
	}
	for _, events := range []<-chan string{typedEvents, metadataEvents} {
		await(t, events, "added before true")
	}
	_, err = lister.ConfigMaps(ns).Get("before")
	ok(t, err)

	after, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "after"}}, metav1.CreateOptions{})
	ok(t, err)
	after.Data = map[string]string{"a": "b"}
	_, err = maps.Update(t.Context(), after, metav1.UpdateOptions{})
	ok(t, err)
	ok(t, maps.Delete(t.Context(), "before", metav1.DeleteOptions{}))
	for _, events := range []<-chan string{typedEvents, metadataEvents} {
		await(t, events, "added after false", "updated after", "deleted before")
	}
	cached, err := lister.ConfigMaps(ns).Get("after")
	ok(t, err)
	equal(t, "the cached data", cached.Data["a"], "b")
	partial, err := lightInformer.Lister().ByNamespace(ns).Get("after")
	ok(t, err)
	equal(t, "the version of the partial object", partial.(*metav1.PartialObjectMetadata).UID, after.UID)
	all, err := lister.List(labels.Everything())
	ok(t, err)
	for _, item := range all {
		equal(t, "the namespace of what is cached", item.Namespace, ns)
	}
	cancel()
	factory.Shutdown()
	lightFactory.Shutdown()
}

// Of two candidates one leads; when it lets go, the other follows.
func TestLeaderElection(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	leading := make(chan string, 2)
	candidate := func(ctx context.Context, identity string) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Name: "leader", Namespace: ns}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		}
		leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
			Lock: lock, Name: "leader", ReleaseOnCancel: true,
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 100 * time.Millisecond,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) { leading <- identity; <-ctx.Done() },
				OnStoppedLeading: func() {},
			},
		})
	}
	holder := func() *coordinationv1.Lease {
		lease, err := client.CoordinationV1().Leases(ns).Get(t.Context(), "leader", metav1.GetOptions{})
		ok(t, err)
		return lease
	}
	first, resign := context.WithCancel(t.Context())
	go candidate(first, "one")
	equal(t, "the first leader", <-leading, "one")
	equal(t, "the holder", *holder().Spec.HolderIdentity, "one")
	second, end := context.WithCancel(t.Context())
	defer end()
	go candidate(second, "two")
	resign()
	select {
	case leader := <-leading:
		equal(t, "the second leader", leader, "two")
	case <-time.After(deadline):
		t.Fatal("nobody followed")
	}
	lease := holder()
	equal(t, "the new holder", *lease.Spec.HolderIdentity, "two")
	if lease.Spec.RenewTime == nil || lease.Spec.RenewTime.IsZero() || *lease.Spec.LeaseTransitions < 1 {
		t.Fatalf("the lease tells nothing: %+v", lease.Spec)
	}
}

// A recorder's events are stored, and counted when they repeat.
func TestEventRecorder(t *testing.T) {
	t.Parallel()
	client, ns := typed(t), namespace(t)
	about, err := client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "about"}}, metav1.CreateOptions{})
	ok(t, err)
	broadcaster := record.NewBroadcaster(record.WithContext(t.Context()))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(ns)})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "recorder"})
	seen := func(count int32) *corev1.Event {
		t.Helper()
		var found *corev1.Event
		until(t, fmt.Sprintf("the event is counted %d times", count), func(ctx context.Context) (bool, error) {
			selector := "involvedObject.name=about,reason=Tested,involvedObject.uid=" + string(about.UID)
			list, err := client.CoreV1().Events(ns).List(ctx, metav1.ListOptions{FieldSelector: selector})
			if err != nil || len(list.Items) != 1 {
				return false, err
			}
			found = &list.Items[0]
			return found.Count == count, nil
		})
		return found
	}
	recorder.Eventf(about, corev1.EventTypeNormal, "Tested", "Tested %d thing", 1)
	equal(t, "the message", seen(1).Message, "Tested 1 thing")
	recorder.Eventf(about, corev1.EventTypeNormal, "Tested", "Tested %d thing", 1)
	seen(2)
	newer, err := client.EventsV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=Tested"})
	ok(t, err)
	equal(t, "the same in events.k8s.io", len(newer.Items), 1)
	equal(t, "its note", newer.Items[0].Note, "Tested 1 thing")
}
