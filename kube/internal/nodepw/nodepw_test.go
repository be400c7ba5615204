package nodepw

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/kubernetes/fake"
)

func TestANameBelongsToItsFirstUser(t *testing.T) {
	ctx := context.Background()
	secrets := fake.NewClientset().CoreV1().Secrets("kube-system")
	for _, step := range []struct {
		node, password string
		want           error
	}{
		{"north", "a", nil},
		{"north", "a", nil},
		{"north", "b", ErrRejected},
		{"North", "b", ErrRejected},
		{"south", "b", nil},
		{"north", "", ErrRejected},
	} {
		if err := Check(ctx, secrets, step.node, step.password); !errors.Is(err, step.want) {
			t.Errorf("%s with %q: %v, want %v", step.node, step.password, err, step.want)
		}
	}
}

func TestThePasswordIsMadeOnceAndThenKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node", "password")
	first, err := Ensure(path)
	if err != nil || len(first) != 32 {
		t.Fatal(first, err)
	}
	if again, err := Ensure(path); err != nil || again != first {
		t.Error(again, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	// What an agent wrote beforehand is taken as it is.
	if err := os.WriteFile(path, []byte("given\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Ensure(path); err != nil || got != "given" {
		t.Error(got, err)
	}
}

func TestHashesThatAreNotOurs(t *testing.T) {
	for _, h := range []string{"", "1:x", "2:YQ==:YQ==", "1:%%:YQ=="} {
		if Verify(h, "a") {
			t.Errorf("%q accepted", h)
		}
	}
}
