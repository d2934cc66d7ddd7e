package ledger

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// Kind of a recorded call.
type Kind string

// What the client does.
const (
	Authorize Kind = "authorize"
	Redeem    Kind = "redeem"
	Refresh   Kind = "refresh"
	Revoke    Kind = "revoke" // by the endpoint or by SQL
	Gate      Kind = "gate"
)

// Entry is one call and its answer.
type Entry struct {
	Kind Kind   `json:"kind"`
	Node string `json:"node"`
	// Sent and Returned are since the ledger was opened.
	Sent     time.Duration `json:"sent"`
	Returned time.Duration `json:"returned"`
	Status   int           `json:"status,omitempty"` // 0: no answer came
	// RetryAfter is the header of that name.
	RetryAfter string `json:"retry_after,omitempty"`
	Failure    string `json:"failure,omitempty"`
	// Dropped: see cluster.Answer.
	Dropped bool `json:"dropped,omitempty"`

	Code      string `json:"code,omitempty"`      // got, or redeemed
	Session   string `json:"session,omitempty"`   // whose it is
	Presented string `json:"presented,omitempty"` // refresh token
	Refresh   string `json:"refresh,omitempty"`   // returned
	Access    string `json:"access,omitempty"`    // returned
	// Wrong: the request must never pass, whoever sends it.
	Wrong string `json:"wrong,omitempty"`
}

// OK reports a 2xx.
func (e Entry) OK() bool { return e.Status/100 == 2 }

// known reports whether the answer tells what happened.
func (e Entry) known() bool { return e.OK() || e.Status/100 == 4 && e.Status != 429 }

// Ledger is the record of one run. It is safe for concurrent use.
type Ledger struct {
	opened time.Time
	file   *os.File

	mu      sync.Mutex
	synced  *sync.Cond
	entries []Entry
	pending []byte
	written int // entries that are in pending or beyond
	durable int // entries that are on disk
	closed  bool
	failure error
}

// Open makes the file. It is closed when the test ends.
func Open(t testing.TB, path string) *Ledger {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l := &Ledger{opened: time.Now(), file: file}
	l.synced = sync.NewCond(&l.mu)
	ended := make(chan struct{})
	go func() { defer close(ended); l.sync() }()
	t.Cleanup(func() {
		l.mu.Lock()
		l.closed = true
		l.synced.Broadcast()
		l.mu.Unlock()
		<-ended
		_ = file.Close()
	})
	return l
}

// Now is the time since the ledger was opened.
func (l *Ledger) Now() time.Duration { return time.Since(l.opened) }

// At is t on the ledger's clock.
func (l *Ledger) At(t time.Time) time.Duration { return t.Sub(l.opened) }

// Record returns once the entry is on disk: only then may its tokens be used.
// Answers of the gate, which nobody uses, are remembered only.
func (l *Ledger) Record(e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, e)
	if e.Kind == Gate {
		return
	}
	line, err := json.Marshal(e)
	if err != nil {
		panic(err) // an Entry has nothing that JSON cannot say
	}
	l.pending = append(append(l.pending, line...), '\n')
	l.written++
	mine := l.written
	l.synced.Broadcast()
	for l.durable < mine && l.failure == nil && !l.closed {
		l.synced.Wait()
	}
}

// sync writes what is pending; calls that come together share one fsync.
func (l *Ledger) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.pending) == 0 && !l.closed {
			l.synced.Wait()
		}
		if len(l.pending) == 0 {
			return
		}
		batch, upTo := l.pending, l.written
		l.pending = nil
		l.mu.Unlock()
		_, err := l.file.Write(batch)
		if err == nil {
			err = l.file.Sync()
		}
		l.mu.Lock()
		l.durable = upTo
		if err != nil {
			l.failure = err
		}
		l.synced.Broadcast()
	}
}

// Failure is why the ledger could not be written.
func (l *Ledger) Failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// Entries are all that was recorded, in the order in which the answers came.
func (l *Ledger) Entries() Entries {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Entries is a part of a ledger.
type Entries []Entry

// Where keeps the entries for which keep is true.
func (es Entries) Where(keep func(Entry) bool) (kept Entries) {
	for _, e := range es {
		if keep(e) {
			kept = append(kept, e)
		}
	}
	return kept
}

// Sent keeps what was sent from one time on and before another.
func (es Entries) Sent(from, before time.Duration) Entries {
	return es.Where(func(e Entry) bool { return from <= e.Sent && e.Sent < before })
}

// Of keeps what is of one of the kinds.
func (es Entries) Of(kinds ...Kind) Entries {
	return es.Where(func(e Entry) bool { return slices.Contains(kinds, e.Kind) })
}

// Quantile is the time that a share q of the calls did not take longer than.
func (es Entries) Quantile(q float64) time.Duration {
	if len(es) == 0 {
		return 0
	}
	took := make([]time.Duration, len(es))
	for i, e := range es {
		took[i] = e.Returned - e.Sent
	}
	slices.Sort(took)
	return took[min(int(q*float64(len(took))), len(took)-1)]
}

// Statuses counts the answers.
func (es Entries) Statuses() map[int]int {
	counts := make(map[int]int)
	for _, e := range es {
		counts[e.Status]++
	}
	return counts
}

func (e Entry) String() string {
	return fmt.Sprintf("%s at %s, sent %s, returned %s: %d %s", e.Kind, e.Node, e.Sent.Round(time.Millisecond), e.Returned.Round(time.Millisecond), e.Status, e.Failure)
}
