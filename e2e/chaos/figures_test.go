//go:build linux

package chaos

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

var (
	long    = flag.Bool("long", false, "the long forms, for make chaos")
	share   = flag.Float64("share", 1, "with -long, the share of the rounds of what is repeated; at least one")
	results = flag.String("results", "", "a file to which every figure is added, a JSON object a line")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if *document != "" {
		if err := writeDocument(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if !*long {
		// A short form waits most of its time.
		_ = flag.Set("test.parallel", "4")
	}
	cluster.Main(m)
}

// pick returns what the form that runs needs.
func pick[T any](shortForm, longForm T) T {
	if *long {
		return longForm
	}
	return shortForm
}

// rounds is pick for how often something is repeated, of which -share takes a
// part.
func rounds(shortForm, longForm int) int {
	return pick(shortForm, max(1, int(float64(longForm)**share)))
}

// figure is one measured value beside the limit it is held to.
type figure struct {
	Row   string `json:"row"`
	What  string `json:"what"`
	Value string `json:"value"`
	Limit string `json:"limit"`
	Kept  bool   `json:"kept"`
	Date  string `json:"date"`
}

// atMost fails the test when the value is above its limit. It is printed in any
// case.
func atMost[T cmp.Ordered](t testing.TB, row, what string, value, limit T) {
	t.Helper()
	report(t, figure{row, what, show(value), "at most " + show(limit), value <= limit, ""})
}

// exactly fails the test when the value is another.
func exactly[T comparable](t testing.TB, row, what string, value, want T) {
	t.Helper()
	report(t, figure{row, what, show(value), show(want), value == want, ""})
}

// noted is a figure without a limit, such as the load that was there.
func noted(t testing.TB, row, what string, value any) {
	t.Helper()
	report(t, figure{row, what, show(value), "", true, ""})
}

func show(value any) string {
	if d, ok := value.(time.Duration); ok {
		return d.Round(100 * time.Microsecond).String()
	}
	return fmt.Sprint(value)
}

var writing sync.Mutex

func report(t testing.TB, f figure) {
	t.Helper()
	line := fmt.Sprintf("%s %s: %s", f.Row, f.What, f.Value)
	if f.Limit != "" {
		line += " (" + f.Limit + ")"
	}
	if f.Kept {
		t.Log(line)
	} else {
		t.Error(line)
	}
	if *results == "" {
		return
	}
	f.Date = time.Now().UTC().Format(time.RFC3339)
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	writing.Lock()
	defer writing.Unlock()
	file, err := os.OpenFile(*results, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := file.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
}
