//go:build linux

package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

var randomFor = flag.Duration("random", 0, "how long TestRandomHistoriesKeepThePromise goes on; 0: 20s, or 10m with -long")

// settling is how long a node may still answer 503 after its way to Postgres was
// mended: connections that were broken are noticed and replaced.
const settling = 6 * time.Second

// TestRandomHistoriesKeepThePromise: issue, refresh, revoke by every way there is,
// narrow, restart, reload and cut off, in random order, against real nodes. After
// each step every node is asked about every session: nothing is admitted that was
// revoked more than the bound ago, nothing is refused that is alive where the
// database can be reached, and every refresh token works. R-25.
//
// The seed is printed; -rapid.seed repeats the choices, though not the timing.
func TestRandomHistoriesKeepThePromise(t *testing.T) {
	t.Parallel()
	limit := *randomFor
	if limit == 0 {
		limit = time.Duration(rounds(20, 600)) * time.Second
	}
	seed := seedOnce(t)
	t.Logf("go test ./e2e/chaos -run %s -random %s -rapid.seed %s", t.Name(), limit, seed)
	c := cluster.New(t, cluster.Config{Nodes: pick(2, 4)})
	w := newWorld(t, c)
	end := time.Now().Add(limit)
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(end) && !w.failed {
			return
		}
		w.T = rt
		w.begin()
		rt.Repeat(map[string]func(*rapid.T){
			"":            func(rt *rapid.T) { w.T = rt; w.check() },
			"issue":       func(rt *rapid.T) { w.T = rt; w.issue() },
			"refresh":     func(rt *rapid.T) { w.T = rt; w.refresh() },
			"revoke":      func(rt *rapid.T) { w.T = rt; w.revoke() },
			"delete user": func(rt *rapid.T) { w.T = rt; w.deleteUser() },
			"disable":     func(rt *rapid.T) { w.T = rt; w.disableClient() },
			"narrow":      func(rt *rapid.T) { w.T = rt; w.narrow() },
			"restart":     func(rt *rapid.T) { w.T = rt; w.restart() },
			"reload":      func(rt *rapid.T) { w.T = rt; w.reload() },
			"cut off":     func(rt *rapid.T) { w.T = rt; w.cutOff() },
			"mend":        func(rt *rapid.T) { w.T = rt; w.mend() },
			"wait":        func(rt *rapid.T) { w.T = rt; time.Sleep(bound / 2) },
		})
		w.settle()
	})
	noted(t, "R-25", "steps", w.steps)
	noted(t, "R-25", "questions to the gate", w.asked)
}

// seedOnce makes the seed of the run known before it is needed.
func seedOnce(t *testing.T) string {
	t.Helper()
	seed := flag.Lookup("rapid.seed").Value
	if seed.String() == "0" {
		if err := seed.Set(strconv.FormatUint(rand.Uint64(), 10)); err != nil {
			t.Fatal(err)
		}
	}
	return seed.String()
}

// world is the cluster, and what must be true of it.
type world struct {
	*rapid.T
	outer    *testing.T
	c        *cluster.Cluster
	nodes    []*knownNode
	user     *cluster.Browser
	users    int
	sessions []*knownSession
	names    int

	steps, asked int
	failed       bool
}

// knownNode is what the model knows of a node.
type knownNode struct {
	*cluster.Node
	cut    time.Time // since when it cannot reach Postgres; zero: it can
	mended time.Time // when it last could again
	strict bool      // it has no view
}

// knownSession is what the model knows of a session.
type knownSession struct {
	name     string
	email    string
	token    cluster.Token
	ended    time.Time // after it was committed; zero: it is alive
	narrowed time.Time // to jobs:read; zero: it has both scopes
}

func newWorld(t *testing.T, c *cluster.Cluster) *world {
	w := &world{outer: t, c: c}
	for _, n := range c.Nodes {
		w.nodes = append(w.nodes, &knownNode{Node: n})
	}
	return w
}

func (w *world) begin() {
	w.mendAll() // what a history that failed has left
	w.sessions = nil
	w.newUser()
	w.issue()
}

func (w *world) newUser() {
	w.users++
	w.user = w.c.SignInAt(w.outer, w.reachable(), fmt.Sprintf("user%d@example.com", w.users))
}

// settle ends a history: all is mended, and what is alive can be used and
// refreshed at any node.
func (w *world) settle() {
	w.mendAll()
	for _, n := range w.nodes {
		n.settled(w)
	}
	for _, s := range w.alive() {
		w.refreshAt(w.reachable(), s)
	}
	w.check()
}

func (w *world) fail(format string, args ...any) {
	w.Helper()
	w.failed = true
	w.Fatalf(format, args...)
}

// reachable draws a node that can reach Postgres; at least one always can.
func (w *world) reachable() *knownNode {
	var nodes []*knownNode
	for _, n := range w.nodes {
		if n.cut.IsZero() {
			nodes = append(nodes, n)
		}
	}
	n := draw(w, "node", nodes)
	n.settled(w)
	return n
}

// draw is rapid.SampledFrom, in whose log one can see what was drawn.
func draw[S any](w *world, what string, from []S) S {
	return from[rapid.IntRange(0, len(from)-1).Draw(w.T, what)]
}

// settled waits until a node that was cut off has found its way back.
func (n *knownNode) settled(w *world) {
	w.Helper()
	if time.Since(n.mended) > settling {
		return
	}
	if err := n.TryReady(2 * settling); err != nil {
		w.fail("%s does not come back: %v", n.Name, err)
	}
	for !n.strict {
		view := n.Status(w.outer).View
		if view.Fresh {
			break
		}
		if time.Since(n.mended) > 2*settling {
			w.fail("the view of %s does not come back: %+v", n.Name, view)
		}
		time.Sleep(20 * time.Millisecond)
	}
	n.mended = time.Time{}
}

func (w *world) alive() (alive []*knownSession) {
	for _, s := range w.sessions {
		if s.ended.IsZero() {
			alive = append(alive, s)
		}
	}
	return alive
}

// session draws one that is alive.
func (w *world) session() *knownSession {
	alive := w.alive()
	if len(alive) == 0 {
		w.Skip("nothing is alive")
	}
	return draw(w, "session", alive)
}

// maxSessions bounds what is asked about after each step.
const maxSessions = 6

func (w *world) issue() {
	if len(w.sessions) >= maxSessions {
		w.sessions = slices.DeleteFunc(w.sessions, func(s *knownSession) bool { return time.Since(s.ended) > 3*bound && !s.ended.IsZero() })
		if len(w.sessions) >= maxSessions {
			w.Skip("enough sessions")
		}
	}
	code, err := w.user.Authorize(context.Background(), w.reachable(), "jobs:read", "applications:write")
	if err != nil {
		w.fail("authorize: %v", err)
	}
	token, answer := cluster.Redeem(context.Background(), w.reachable(), code)
	if !answer.OK() {
		w.fail("redeem: %s", answer)
	}
	w.names++
	w.sessions = append(w.sessions, &knownSession{name: fmt.Sprint("session ", w.names), email: w.user.Email, token: token})
}

// refresh draws any session; that of one that has ended is refused.
func (w *world) refresh() {
	if len(w.sessions) == 0 {
		w.Skip("no sessions")
	}
	s := draw(w, "session", w.sessions)
	if s.ended.IsZero() {
		w.refreshAt(w.reachable(), s)
		return
	}
	if _, answer := cluster.Refresh(context.Background(), w.reachable(), s.token.Refresh); answer.Status != http.StatusBadRequest {
		w.fail("refresh of %s, which has ended: %s", s.name, answer)
	}
}

func (w *world) refreshAt(n *knownNode, s *knownSession) {
	token, answer := cluster.Refresh(context.Background(), n, s.token.Refresh)
	if !answer.OK() {
		w.fail("%s refuses to refresh %s: %s", n.Name, s.name, answer)
	}
	s.token = token
}

func (w *world) revoke() {
	s := w.session()
	switch how := rapid.SampledFrom([]string{"API, refresh token", "API, access token", "UPDATE", "DELETE"}).Draw(w.T, "how"); how {
	case "UPDATE":
		w.sql(`UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1`, s.token.Session)
	case "DELETE":
		w.sql(`DELETE FROM gpt_sessions WHERE id = $1`, s.token.Session)
	default:
		token := s.token.Refresh
		if strings.Contains(how, "access") {
			token = s.token.Access
		}
		if answer := cluster.Revoke(context.Background(), w.reachable(), token); !answer.OK() {
			w.fail("revoke: %s", answer)
		}
	}
	s.ended = time.Now()
}

func (w *world) sql(statement string, args ...any) {
	w.Helper()
	if err := w.c.Postgres.Try(statement, args...); err != nil {
		w.fail("%s: %v", statement, err)
	}
}

func (w *world) deleteUser() {
	w.sql(`DELETE FROM gpt_users WHERE email = $1`, w.user.Email)
	w.endAll(func(s *knownSession) bool { return s.email == w.user.Email })
	w.newUser()
}

func (w *world) disableClient() {
	w.sql(`UPDATE gpt_clients SET disabled_at = now() WHERE client_id = $1`, cluster.ClientID)
	w.endAll(func(*knownSession) bool { return true })
	w.sql(`UPDATE gpt_clients SET disabled_at = NULL WHERE client_id = $1`, cluster.ClientID)
}

func (w *world) endAll(which func(*knownSession) bool) {
	now := time.Now()
	for _, s := range w.alive() {
		if which(s) {
			s.ended = now
		}
	}
}

func (w *world) narrow() {
	s := w.session()
	w.sql(`UPDATE gpt_sessions SET scopes = '{jobs:read}' WHERE id = $1`, s.token.Session)
	if s.narrowed.IsZero() {
		s.narrowed = time.Now()
	}
}

func (w *world) restart() {
	n := w.reachable()
	if rapid.Bool().Draw(w.T, "kill") {
		n.Kill()
	} else {
		n.Terminate()
		_ = n.Ended(w.outer)
	}
	n.Start(w.outer)
	if err := n.TryReady(time.Minute); err != nil {
		w.fail("%s does not start: %v", n.Name, err)
	}
}

func (w *world) reload() {
	n := w.reachable()
	options := rapid.SampledFrom([]string{"", "session_check strict", "max_staleness 500ms", "event_retention 30d"}).Draw(w.T, "options")
	n.Configure(w.outer, options)
	if err := n.Reload(); err != nil {
		w.fail("reload: %v", err)
	}
	n.strict = strings.Contains(options, "strict")
}

// cuts are the ways to lose Postgres.
var cuts = map[string]func(*cluster.Node){
	"freeze":    func(n *cluster.Node) { n.Wire.Freeze() },
	"refuse":    func(n *cluster.Node) { n.Wire.Refuse(); n.Wire.Reset() },
	"lose":      func(n *cluster.Node) { n.Wire.Lose() },
	"one way":   func(n *cluster.Node) { n.Wire.Freeze(postgrestest.ToClient) },
	"half-open": func(n *cluster.Node) { n.Wire.HalfOpen() },
}

func (w *world) cutOff() {
	n := w.reachable()
	connected := 0
	for _, other := range w.nodes {
		if other.cut.IsZero() {
			connected++
		}
	}
	if connected < 2 {
		w.Skip("the last one that can reach Postgres")
	}
	how := rapid.SampledFrom(slices.Sorted(maps.Keys(cuts))).Draw(w.T, "how")
	n.cut = time.Now()
	cuts[how](n.Node)
}

func (w *world) mend() {
	if !slices.ContainsFunc(w.nodes, func(n *knownNode) bool { return !n.cut.IsZero() }) {
		w.Skip("nothing is broken")
	}
	w.mendAll()
}

func (w *world) mendAll() {
	for _, n := range w.nodes {
		if !n.cut.IsZero() {
			n.Wire.Heal(w.outer)
			n.cut, n.mended = time.Time{}, time.Now()
		}
	}
}

// check asks every node about every session, all at once.
func (w *world) check() {
	w.steps++
	var mu sync.Mutex
	var wrong []string
	var questions sync.WaitGroup
	for _, n := range w.nodes {
		for _, s := range w.sessions {
			questions.Go(func() {
				for path, need := range map[string]time.Time{"/jobs": s.ended, "/applications": earlier(s.ended, s.narrowed)} {
					answer := ask(n, path, s.token.Access)
					problem := n.judge(answer, need, s.ended.IsZero())
					mu.Lock()
					w.asked++
					if problem != "" {
						wrong = append(wrong, fmt.Sprintf("%s, %s of %s: %s: %s", n.Name, path, s.name, problem, answer))
					}
					mu.Unlock()
				}
			})
		}
	}
	questions.Wait()
	if len(wrong) > 0 {
		w.fail("%s", strings.Join(wrong, "\n"))
	}
}

// ask asks the node, again where a restart or a reload has just ended the
// connection that an earlier request left.
func ask(n *knownNode, path, token string) (answer cluster.Answer) {
	method := http.MethodGet
	if path == "/applications" {
		method = http.MethodPost
	}
	for range 3 {
		if answer = cluster.Call(context.Background(), n, method, path, token); answer.Err == nil {
			break
		}
		n.Client().CloseIdleConnections()
	}
	return answer
}

// judge says what is wrong with an answer to a request that may pass until
// refused, or for ever if that is zero.
func (n *knownNode) judge(a cluster.Answer, refused time.Time, alive bool) string {
	over := !refused.IsZero() && a.Sent.Sub(refused) > bound
	away := !n.cut.IsZero() || time.Since(n.mended) < settling
	switch {
	case a.OK() && over:
		return fmt.Sprintf("admitted %s after it was revoked", a.Sent.Sub(refused))
	case a.OK(), a.Status == http.StatusServiceUnavailable && away:
		return ""
	case a.Status == http.StatusUnauthorized && !alive, a.Status == http.StatusForbidden && alive && !refused.IsZero():
		return ""
	case a.Status == http.StatusForbidden && !alive && !refused.IsZero():
		return "" // was narrowed, then ended
	}
	return "refused"
}

// earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
