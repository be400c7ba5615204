package cli

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"k8s.io/klog/v2"
)

// quiet keeps Kubernetes to errors unless debug is asked for, and those short: a
// node's serial console is slow, and while it starts the components complain of
// much that mends itself.
func quiet(debug bool) {
	if debug {
		return
	}
	fs := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(fs)
	_ = fs.Set("stderrthreshold", "FATAL")
	klog.LogToStderr(false)
	for _, severity := range []string{"INFO", "WARNING", "FATAL"} {
		klog.SetOutputBySeverity(severity, io.Discard)
	}
	klog.SetOutputBySeverity("ERROR", &calm{to: os.Stderr, now: time.Now})
}

// lineLimit is how much of a component's line is shown, in bytes.
const lineLimit = 300

// repeatAfter is how long a line from the same place in the code stays unsaid.
const repeatAfter = time.Minute

// calm passes on klog's lines, shortened, and each place's only now and then.
type calm struct {
	to   io.Writer
	now  func() time.Time
	lock sync.Mutex
	said map[string]time.Time
	kept map[string]int
}

func (c *calm) Write(line []byte) (int, error) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.said == nil {
		c.said, c.kept = map[string]time.Time{}, map[string]int{}
	}
	place, now := place(line), c.now()
	if last, ok := c.said[place]; ok && now.Sub(last) < repeatAfter {
		c.kept[place]++
		return len(line), nil
	}
	short := bytes.TrimRight(line, "\n")
	if len(short) > lineLimit {
		short = append(append([]byte{}, short[:lineLimit]...), "..."...)
	}
	more := ""
	if n := c.kept[place]; n > 0 {
		more = fmt.Sprintf(" (%d more like it before)", n)
	}
	c.said[place], c.kept[place] = now, 0
	_, err := fmt.Fprintf(c.to, "%s%s\n", short, more)
	return len(line), err
}

// place is klog's "file.go:line", which ends at the first bracket.
func place(line []byte) string {
	head, _, _ := bytes.Cut(line, []byte("]"))
	if i := bytes.LastIndexByte(head, ' '); i >= 0 {
		return string(head[i+1:])
	}
	return string(head)
}
