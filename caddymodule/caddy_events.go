package caddymodule

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// The events that Caddy's app `events` gets from us, with those of admin.Admin.Tell
// behind eventPrefix. docs/events.md tells what is in each.
const (
	eventSessionRevoked  = "oauth_session_revoked"
	eventSessionsRevoked = "oauth_sessions_revoked"
	eventRefreshReuse    = "oauth_refresh_reuse"
	eventCodeReuse       = "oauth_code_reuse"
	eventAccountEnded    = "oauth_account_ended"
	eventSignInLimited   = "oauth_sign_in_limited"
	eventViewStale       = "oauth_view_stale"
	eventViewFresh       = "oauth_view_fresh"
	eventDatabaseAway    = "oauth_database_away"
	eventDatabaseBack    = "oauth_database_back"
)

const (
	eventPrefix = "oauth_"
	// maxWaitingEvents is what waits for a handler that is slow; further ones are
	// dropped and counted.
	maxWaitingEvents = 1024
	// eventLookEvery is how often the worker looks how the node does.
	eventLookEvery = time.Second
	// limitedEvery keeps who guesses passwords from filling the queue.
	limitedEvery = time.Minute
)

var droppedEvents = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "caddy_oauth_caddy_events_dropped_total",
	Help: "Events for Caddy's app events that its handlers never got, as they were too slow.",
})

// caddyEvents hands events to Caddy's app `events`. Its handlers are called one
// after the other by one goroutine: Emit returns when they have, and no request
// is to wait for them, or to break when one panics. Safe for concurrent use.
type caddyEvents struct {
	app    *caddyevents.App
	ctx    caddy.Context
	logger *zap.Logger
	queue  chan caddyEvent
	begun  chan struct{} // closed when Caddy has started: the app knows all who subscribed
	begin  sync.Once
	warn   sync.Once // of dropped ones
	looked atomic.Bool

	mu      sync.Mutex
	limited map[string]time.Time // by method of signing in, when it was told of last
}

type caddyEvent struct {
	name string
	data map[string]any
}

// provisionCaddyEvents takes Caddy's app `events`, which the app http has too. Who
// listens is known when all apps have started.
func (a *App) provisionCaddyEvents() error {
	app, err := a.ctx.App("events")
	if err != nil {
		return fmt.Errorf("loading Caddy's app events: %w", err)
	}
	e := &caddyEvents{
		app: app.(*caddyevents.App), ctx: a.ctx, logger: a.logger, queue: make(chan caddyEvent, maxWaitingEvents),
		begun: make(chan struct{}), limited: make(map[string]time.Time),
	}
	a.caddyEvents = e
	return e.app.On("started", e)
}

// Handle implements caddyevents.Handler: Caddy tells that all apps have started.
func (e *caddyEvents) Handle(context.Context, caddy.Event) error {
	e.begin.Do(func() { close(e.begun) })
	return nil
}

// tell notes an event. It never waits. Empty texts are left out of data, which is
// a list of names and values, and no secret is among them.
func (e *caddyEvents) tell(name string, data ...any) {
	select {
	case <-e.begun:
		if !e.app.ShouldEmit(name) {
			return
		}
	default:
	}
	event := caddyEvent{name, make(map[string]any, len(data)/2)}
	for i := 0; i+1 < len(data); i += 2 {
		if data[i+1] != "" {
			event.data[data[i].(string)] = data[i+1]
		}
	}
	select {
	case e.queue <- event:
	default:
		droppedEvents.Inc()
		e.warn.Do(func() {
			e.logger.Warn("events for Caddy's app events are dropped: a handler is too slow", zap.String("event", name))
		})
	}
}

// tellLimited notes that somebody has reached the limit of failures, at most once
// a minute for each method.
func (e *caddyEvents) tellLimited(method string) {
	now := time.Now()
	e.mu.Lock()
	last, told := e.limited[method]
	due := !told || now.Sub(last) >= limitedEvery
	if due {
		e.limited[method] = now
	}
	e.mu.Unlock()
	if due {
		e.tell(eventSignInLimited, "method", method)
	}
}

// run emits until ctx ends, and looks meanwhile how the node does.
func (e *caddyEvents) run(ctx context.Context, rt *runtime) {
	select {
	case <-ctx.Done():
		return
	case <-e.begun:
	}
	var look <-chan time.Time
	if e.looks() {
		ticker := time.NewTicker(eventLookEvery)
		defer ticker.Stop()
		look = ticker.C
	}
	view, database := watch{bad: eventViewStale, good: eventViewFresh}, watch{bad: eventDatabaseAway, good: eventDatabaseBack}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-e.queue:
			e.emit(event)
		case <-look:
			if rt.view != nil {
				e.emitChange(view.look(rt.view.State().Fresh))
			}
			if rt.pool != nil {
				e.emitChange(database.look(rt.pool.State().Answers))
			}
			e.looked.Store(true)
		}
	}
}

// looks reports whether somebody listens for how the node does.
func (e *caddyEvents) looks() bool {
	return slices.ContainsFunc([]string{eventViewStale, eventViewFresh, eventDatabaseAway, eventDatabaseBack}, e.app.ShouldEmit)
}

func (e *caddyEvents) emitChange(name string) {
	if name != "" {
		e.emit(caddyEvent{name, map[string]any{}})
	}
}

// emit calls the handlers. One that panics has its line in the log.
func (e *caddyEvents) emit(event caddyEvent) {
	defer func() {
		if cause := recover(); cause != nil {
			e.logger.Error("a handler of Caddy's app events panicked", zap.String("event", event.name), zap.Any("cause", cause), zap.ByteString("stack", debug.Stack()))
		}
	}()
	e.app.Emit(e.ctx, event.name, event.data)
}

// watch notices changes of what is looked at.
type watch struct {
	bad, good  string // events
	known, was bool
}

// look returns the event of a change, or nothing.
func (w *watch) look(is bool) string {
	changed := w.known && is != w.was
	w.known, w.was = true, is
	switch {
	case changed && is:
		return w.good
	case changed:
		return w.bad
	}
	return ""
}

var _ caddyevents.Handler = (*caddyEvents)(nil)
