package issuer

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"
)

const (
	webhookLookEvery  = time.Second
	webhookMaxBackOff = time.Minute
	// WebhookLease is how long a node may send without saying so again; when it has
	// died, another one goes on after that.
	WebhookLease = 30 * time.Second
	// webhookSaveAfter is when a node says how far it is, at the latest. An attempt
	// that begins then is over, and said, before the lease ends.
	webhookSaveAfter = 10 * time.Second
	// webhookLastWords is what a request under way gets when the configuration is
	// left.
	webhookLastWords = time.Second
)

// ErrNotSender: another node sends to this destination now.
var ErrNotSender = errors.New("another node sends")

// EventBatch are the next events for a destination, in their order.
type EventBatch struct {
	Events []AuditEvent
	// Transactions are those that wrote them, one for each.
	Transactions []string
	// Server is that which told them; what was taken is said to no other.
	Server int64
	// Oldest is when the first one was written that has not gone, also if it cannot
	// go yet. Zero: there is none.
	Oldest time.Time
	// Now is the database's time.
	Now time.Time
	// GoneBefore is set if events may have been removed before they went: those
	// written since GoneSince, and before it.
	GoneSince, GoneBefore time.Time
}

// EventFeed is the audit trail as a destination has not had it yet.
type EventFeed interface {
	// NextEvents returns what comes next, at most a few, and nobody else sends it as
	// long as the lease lasts. ErrNotSender, with Oldest and Now.
	NextEvents(ctx context.Context, destination string, holder uuid.UUID, lease time.Duration) (EventBatch, error)
	// EventsTaken moves the cursor behind the first n of the batch and renews the
	// lease; 0 gives it up. ErrNotSender: it was lost, or this is another server, and
	// nothing moved.
	EventsTaken(ctx context.Context, destination string, holder uuid.UUID, batch EventBatch, n int, lease time.Duration) error
}

// WebhookTally hears how sending goes.
type WebhookTally interface {
	EventDelivered()
	EventFailed()
}

// WebhookSender sends what the feed holds to one webhook: each event at least
// once, in order, and none before the one before it was taken.
type WebhookSender struct {
	Webhook *Webhook
	Feed    EventFeed
	Tally   WebhookTally
	Logger  *zap.Logger

	holder  uuid.UUID
	toldGap time.Time

	mu     sync.Mutex
	oldest time.Time // by this node's clock; zero: none waits
}

// Lag is for how long the oldest event has waited that has not gone.
func (s *WebhookSender) Lag() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldest.IsZero() {
		return 0
	}
	return max(0, time.Since(s.oldest))
}

// Run sends until ctx ends. Nothing waits for it, and it keeps no more than a
// batch in memory.
func (s *WebhookSender) Run(ctx context.Context) {
	defer s.Webhook.client.CloseIdleConnections()
	s.holder = uuid.New()
	failures := 0
	for {
		more, err := s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := webhookLookEvery
		switch {
		case errors.Is(err, ErrNotSender): // how we do says nothing of how we would
		case err != nil:
			if failures++; failures == 1 { // said once
				s.Logger.Warn("events cannot be delivered; trying again until they are", zap.String("webhook", s.Webhook.Destination()), zap.Error(err))
			}
			wait = min(webhookMaxBackOff, webhookLookEvery<<min(failures-1, 6))
		case failures > 0:
			s.Logger.Info("events are delivered again", zap.String("webhook", s.Webhook.Destination()), zap.Int("failures", failures))
			failures = 0
		}
		if more {
			continue
		}
		select { // a receiver that was down is not met by all nodes at once
		case <-ctx.Done():
			return
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}

// round sends a batch; more: there was something to send, and all of it was taken.
func (s *WebhookSender) round(ctx context.Context) (more bool, err error) {
	// 1. What is next, and that it is ours to send.
	said := time.Now()
	batch, err := s.Feed.NextEvents(ctx, s.Webhook.Destination(), s.holder, WebhookLease)
	if err == nil || errors.Is(err, ErrNotSender) {
		s.waiting(batch)
	}
	if err != nil || len(batch.Events) == 0 {
		return false, err
	}
	s.tellGap(batch)
	// 2. One after the other. How far we came is said now and then.
	taken := 0
	for i := range batch.Events {
		if ctx.Err() != nil {
			break
		}
		if time.Since(said) > webhookSaveAfter {
			said = time.Now()
			if err := s.say(ctx, batch, taken, WebhookLease); err != nil {
				return false, err
			}
		}
		if s.Webhook.Takes(batch.Events[i].Type) {
			if err = s.send(ctx, &batch.Events[i]); err != nil {
				s.Tally.EventFailed()
				break
			}
			s.Tally.EventDelivered()
		}
		taken++
	}
	// 3. In the end too. Whichever node comes first goes on: the way from here may be
	// the one that is cut.
	return err == nil, errors.Join(err, s.say(ctx, batch, taken, 0))
}

// tellGap says it at most once an hour.
func (s *WebhookSender) tellGap(batch EventBatch) {
	if batch.GoneBefore.IsZero() || !s.toldGap.IsZero() && time.Since(s.toldGap) < time.Hour {
		return
	}
	s.toldGap = time.Now()
	s.Logger.Error("events were removed before the webhook took them: they had come to the end of event_retention",
		zap.String("webhook", s.Webhook.Destination()), zap.Time("since", batch.GoneSince), zap.Time("before", batch.GoneBefore))
}

// say also comes through when the configuration is being left.
func (s *WebhookSender) say(ctx context.Context, batch EventBatch, taken int, lease time.Duration) error {
	return s.Feed.EventsTaken(context.WithoutCancel(ctx), s.Webhook.Destination(), s.holder, batch, taken, lease)
}

// send gives a request under way a moment to end: the receiver may have taken what
// it brings.
func (s *WebhookSender) send(ctx context.Context, event *AuditEvent) error {
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(webhookLastWords, cancel) })
	defer stop()
	return s.Webhook.Send(sending, event)
}

func (s *WebhookSender) waiting(batch EventBatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.oldest = (time.Time{}); !batch.Oldest.IsZero() {
		s.oldest = time.Now().Add(-batch.Now.Sub(batch.Oldest))
	}
}
