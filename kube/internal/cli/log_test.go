package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestComponentsAreKeptShort(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	c := &calm{to: &out, now: func() time.Time { return now }}
	say := func(line string) {
		if n, err := c.Write([]byte(line)); err != nil || n != len(line) {
			t.Fatal(n, err)
		}
	}
	say("E1121 08:36:06.8 166 a.go:1] \"first\"\n")
	say("E1121 08:36:06.9 166 a.go:1] \"first again\"\n")
	say("E1121 08:36:07.0 166 b.go:2] " + strings.Repeat("x", 1000) + "\n")
	now = now.Add(repeatAfter)
	say("E1121 08:37:07.0 166 a.go:1] \"later\"\n")
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.HasSuffix(lines[2], `"later" (1 more like it before)`) {
		t.Errorf("%q", lines)
	}
	if len(lines[1]) > lineLimit+3 {
		t.Errorf("%d bytes", len(lines[1]))
	}
}
