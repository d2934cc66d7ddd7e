package caddymodule

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/validator"
)

const (
	// streamCheckEvery is how often open streams are decided about again.
	streamCheckEvery = 500 * time.Millisecond
	// streamDoubt is how long a stream goes on while nobody can say whether it
	// may.
	streamDoubt = 5 * time.Second
	// streamChecks is how many sessions are asked about at once.
	streamChecks = 32
)

// openStreams are the answers of a gate that last: WebSockets, event streams,
// long downloads. Each is closed when its token expires or its session ends. A
// short answer of known length never comes here, so that it costs nothing.
// SECURITY-CASES W-02.
type openStreams struct {
	mu       sync.Mutex
	open     map[*stream]bool
	watching bool
}

// stream is one answer that lasts.
type stream struct {
	grant     validator.Grant
	close     func()
	confirmed time.Time // this and over are touched by watch only, after add
	over      error     // why it must end; nil: it need not
}

func (o *openStreams) add(s *stream, gate *Protect) {
	s.confirmed = time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.open == nil {
		o.open = make(map[*stream]bool)
	}
	o.open[s] = true
	if !o.watching {
		o.watching = true
		go o.watch(gate)
	}
}

// remove is called when the answer is complete. Afterwards its connection is
// another request's, and close is not called any more.
func (o *openStreams) remove(s *stream) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.open, s)
}

// watch runs as long as a stream is open, also after a reload that replaced the
// gate.
func (o *openStreams) watch(gate *Protect) {
	for {
		time.Sleep(streamCheckEvery)
		streams := o.list()
		if streams == nil {
			return
		}
		var all sync.WaitGroup
		slots := make(chan struct{}, streamChecks)
		for _, s := range streams {
			slots <- struct{}{}
			all.Go(func() {
				defer func() { <-slots }()
				if s.over != nil {
					o.close(s)
				} else if s.over = s.confirm(gate.resource); s.over != nil && o.close(s) {
					gate.decisionsOf(s.grant.Rule()).count(outcomeStreamEnded)
					gate.logger.Debug("stream ended", zap.String("gate", gate.Source), zap.NamedError("cause", s.over))
				}
			})
		}
		all.Wait()
	}
}

// list returns the open streams; nil ends the watch.
func (o *openStreams) list() []*stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watching = len(o.open) > 0
	var streams []*stream
	for s := range o.open {
		streams = append(streams, s)
	}
	return streams
}

// confirm returns why the stream must end, or nil.
func (s *stream) confirm(resource *validator.Resource) error {
	ctx, cancel := context.WithTimeout(context.Background(), streamDoubt/2)
	defer cancel()
	err := resource.Confirm(ctx, s.grant)
	var refusal *validator.Refusal
	switch {
	case err == nil:
		s.confirmed = time.Now()
	case errors.As(err, &refusal) && refusal.Status == http.StatusServiceUnavailable && time.Since(s.confirmed) < streamDoubt:
		return nil
	}
	return err
}

// close reports whether the stream was still open. It stays so until its handler
// has returned, and is closed again at the next check: what is sent at this very
// moment may have renewed the deadline that was to end it.
func (o *openStreams) close(s *stream) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.open[s] {
		return false // complete meanwhile
	}
	s.close()
	return true
}
