//go:build linux

package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
)

const (
	// retryFor is how long a client asks again after no answer: well within the
	// grace of a refresh token.
	retryFor   = 40 * time.Second
	retryPause = 300 * time.Millisecond
	// linger is how long requests go on with the token of a session that ended.
	linger = 5 * time.Second
	// maxFamilies are held at once; the oldest are then left alone until Settle.
	maxFamilies = 4000
)

// Config of a Load. The zero value of a field means its default.
type Config struct {
	// Flows at once, each from authorization to revocation; zero: 4. After each
	// step of a flow comes FlowPause.
	Flows     int
	FlowPause time.Duration
	// Callers at once of the gate; zero: 8. After each call comes CallPause.
	Callers   int
	CallPause time.Duration
	// Users; zero: 4.
	Users int
	// Ahead are sessions that exist before the load begins; zero: 20.
	Ahead int
	// Endpoints are where requests go; nil: every node.
	Endpoints []cluster.Endpoint
	// KeepAll revokes nothing.
	KeepAll bool
}

// Load is traffic that is written to a ledger.
type Load struct {
	*Ledger
	cfg     Config
	cluster *cluster.Cluster
	users   []*cluster.Browser

	mu    sync.Mutex
	alive []*held // sessions that the callers use
	all   []*held

	stop    context.CancelFunc
	running sync.WaitGroup
	flows   atomic.Int64
}

// held is what a client keeps of a session.
type held struct {
	session, access string

	mu      sync.Mutex
	refresh string
	// over: revoked by a recorded call, or a call for which no answer came may
	// have left it behind.
	over bool
}

// NewLoad signs the users in and makes the first sessions.
func NewLoad(t testing.TB, c *cluster.Cluster, l *Ledger, cfg Config) *Load {
	t.Helper()
	orDefault(&cfg.Flows, 4)
	orDefault(&cfg.Callers, 8)
	orDefault(&cfg.Users, 4)
	orDefault(&cfg.Ahead, 20)
	if cfg.Endpoints == nil {
		for _, n := range c.Nodes {
			cfg.Endpoints = append(cfg.Endpoints, n)
		}
	}
	load := &Load{Ledger: l, cfg: cfg, cluster: c}
	for i := range cfg.Users {
		load.users = append(load.users, c.SignIn(t, fmt.Sprintf("user%d@example.com", i)))
	}
	for i := range cfg.Ahead {
		if h := load.connect(t.Context(), load.users[i%len(load.users)]); h == nil {
			t.Fatal("no session could be made before the load")
		}
	}
	return load
}

func orDefault(n *int, value int) {
	if *n == 0 {
		*n = value
	}
}

// Start begins the traffic; Stop ends it and returns when the last call has
// its answer.
func (l *Load) Start() {
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	for i := range l.cfg.Flows {
		l.running.Go(func() {
			for ctx.Err() == nil {
				l.flow(ctx, l.users[i%len(l.users)])
				pause(ctx, l.cfg.FlowPause)
			}
		})
	}
	for range l.cfg.Callers {
		l.running.Go(func() {
			for ctx.Err() == nil {
				l.call()
				pause(ctx, l.cfg.CallPause)
			}
		})
	}
}

// Stop ends what Start began.
func (l *Load) Stop() {
	l.stop()
	l.running.Wait()
}

// Flows is how many went from authorization to the end.
func (l *Load) Flows() int { return int(l.flows.Load()) }

func (l *Load) anywhere() cluster.Endpoint { return l.cfg.Endpoints[rand.N(len(l.cfg.Endpoints))] }

// flow is one client's way: a code, its tokens, some refreshes, perhaps the end.
func (l *Load) flow(ctx context.Context, user *cluster.Browser) {
	h := l.connect(ctx, user)
	if h == nil {
		pause(ctx, retryPause)
		return
	}
	for range 1 + rand.N(3) {
		pause(ctx, l.cfg.FlowPause)
		if ctx.Err() != nil || !l.refresh(ctx, h) {
			return
		}
	}
	if !l.cfg.KeepAll && rand.N(3) == 0 {
		l.revoke(ctx, h)
	}
	l.flows.Add(1)
}

// connect goes from authorization to a session; nil: it did not come to be.
func (l *Load) connect(ctx context.Context, user *cluster.Browser) *held {
	at := l.anywhere()
	sent := l.Now()
	code, err := user.Authorize(context.WithoutCancel(ctx), at, "jobs:read")
	entry := Entry{Kind: Authorize, Node: name(at), Sent: sent, Returned: l.Now(), Code: code.Code, Status: http.StatusOK}
	if err != nil {
		entry.Status, entry.Failure = 0, err.Error()
		var refused *cluster.RefusedError
		if errors.As(err, &refused) {
			entry.Status = refused.Status
		}
	}
	l.Record(entry)
	if err != nil {
		return nil
	}
	// One in four is sent twice at once, as by an impatient user: one wins.
	var token cluster.Token
	l.ask(ctx, func() bool {
		answers := l.asOften(1+rand.N(4)/3, func() (cluster.Token, Entry) {
			at := l.anywhere()
			token, answer := cluster.Redeem(context.WithoutCancel(ctx), at, code)
			return token, l.record(Entry{Kind: Redeem, Node: name(at), Code: code.Code}, token, answer)
		})
		done := false
		for _, a := range answers {
			if a.entry.OK() {
				token = a.token
			}
			done = done || a.entry.known()
		}
		return done
	})
	if token.Session == "" {
		return nil
	}
	h := &held{session: token.Session, access: token.Access, refresh: token.Refresh}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, h)
	if l.alive = append(l.alive, h); len(l.alive) > maxFamilies {
		l.alive = l.alive[1:]
	}
	return h
}

// refresh moves the session's refresh token; false: there is none any more.
// One in four is sent twice at once, as by two tabs: both get the same.
func (l *Load) refresh(ctx context.Context, h *held) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return false
	}
	presented, moved := h.refresh, false
	answered := l.ask(ctx, func() bool {
		answers := l.asOften(1+rand.N(4)/3, func() (cluster.Token, Entry) {
			at := l.anywhere()
			token, answer := cluster.Refresh(context.WithoutCancel(ctx), at, presented)
			return token, l.record(Entry{Kind: Refresh, Node: name(at), Session: h.session, Presented: presented}, token, answer)
		})
		known := false
		for _, a := range answers {
			if a.entry.OK() {
				h.refresh, moved = a.token.Refresh, true
			}
			known = known || a.entry.known()
		}
		return known
	})
	if !answered {
		h.over = true // the grace may pass before anybody asks again
	}
	return moved
}

// revoke ends the session by the endpoint or, as an operator would, in SQL.
func (l *Load) revoke(ctx context.Context, h *held) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	l.ask(ctx, func() bool {
		if rand.N(2) == 0 {
			entry := Entry{Kind: Revoke, Node: "psql", Session: h.session, Sent: l.Now()}
			err := l.cluster.Postgres.Try(`UPDATE gpt_sessions SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL`, h.session)
			entry.Returned, entry.Status = l.Now(), http.StatusOK
			if err != nil {
				entry.Status, entry.Failure = 0, err.Error()
			}
			l.Record(entry)
			return err == nil
		}
		at := l.anywhere()
		answer := cluster.Revoke(context.WithoutCancel(ctx), at, h.refresh)
		return l.record(Entry{Kind: Revoke, Node: name(at), Session: h.session}, cluster.Token{}, answer).known()
	})
	time.AfterFunc(linger, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, other := range l.alive {
			if other == h {
				l.alive[i] = l.alive[len(l.alive)-1]
				l.alive = l.alive[:len(l.alive)-1]
				return
			}
		}
	})
}

// call asks the gate for something with a token of some session, and now and
// then for what must not pass.
func (l *Load) call() {
	l.mu.Lock()
	h := l.alive[rand.N(len(l.alive))]
	l.mu.Unlock()
	at := l.anywhere()
	entry := Entry{Kind: Gate, Node: name(at), Session: h.session}
	path, token := "/jobs", h.access
	switch rand.N(40) {
	case 0:
		path, entry.Wrong = "/admin", "a path without a rule"
	case 1:
		token, entry.Wrong = token[:len(token)-8]+"AAAAAAAA", "a token with another signature"
	case 2:
		token, entry.Wrong = h.current(), "a refresh token"
	}
	l.record(entry, cluster.Token{}, cluster.Get(context.Background(), at, path, token))
}

// current is the refresh token that the client holds now.
func (h *held) current() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.refresh
}

// record writes the answer down.
func (l *Load) record(e Entry, token cluster.Token, a cluster.Answer) Entry {
	e.Sent = l.At(a.Sent)
	e.Returned = e.Sent + a.Took
	e.Status, e.RetryAfter = a.Status, a.Header.Get("Retry-After")
	if a.Err != nil {
		e.Status, e.Failure, e.Dropped = 0, a.Err.Error(), a.Dropped
	}
	if token.Session != "" {
		e.Session, e.Refresh, e.Access = token.Session, token.Refresh, token.Access
	}
	l.Record(e)
	return e
}

type answered struct {
	token cluster.Token
	entry Entry
}

// asOften does the same n times at once.
func (l *Load) asOften(n int, do func() (cluster.Token, Entry)) []answered {
	answers := make([]answered, n)
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() { answers[i].token, answers[i].entry = do() })
	}
	wg.Wait()
	return answers
}

// ask does it until there is an answer that tells what happened; false: there
// was none in time. What was begun is brought to an end, also when the load is
// being stopped.
func (l *Load) ask(ctx context.Context, do func() bool) bool {
	for deadline := time.Now().Add(retryFor); !do(); {
		if time.Now().After(deadline) {
			return false
		}
		pause(ctx, retryPause)
		if ctx.Err() != nil {
			time.Sleep(retryPause)
		}
	}
	return true
}

func pause(ctx context.Context, d time.Duration) {
	if d == 0 {
		return
	}
	// Spread, so that the callers do not march in step.
	select {
	case <-ctx.Done():
	case <-time.After(d/2 + rand.N(d)):
	}
}

// name of an endpoint in the ledger.
func name(e cluster.Endpoint) string {
	if n, ok := e.(*cluster.Node); ok {
		return n.Name
	}
	return "balancer"
}
