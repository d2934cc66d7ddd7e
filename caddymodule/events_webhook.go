package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/postgres"
)

// EventsWebhookSettings is somebody who is sent the audit trail (gpt_oauth_events)
// as it grows: signed POST requests, as Standard Webhooks has them.
type EventsWebhookSettings struct {
	// URL takes the requests: https, or http on this machine. Placeholders. Required.
	URL string `json:"url,omitempty"`
	// Secrets sign, all of them, so that one can be replaced by the next: whsec_ and
	// base64, of at least 16 bytes. Placeholders. Required.
	Secrets []string `json:"secrets,omitempty"`
	// Types are the types of events that are sent, such as "session_revoked"; each
	// must exist.
	// Default: all.
	Types []string `json:"types,omitempty"`
}

// parseEventsWebhook reads
//
//	events_webhook <url> {
//		secret <secret>      # again while it is being replaced
//		types  <type...>     # all
//	}
func (s *Settings) parseEventsWebhook(d *caddyfile.Dispenser) (err error) {
	w := EventsWebhookSettings{}
	if w.URL, err = value(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("events_webhook: unexpected %q", d.Val())
	}
	if err := parseBlock(d, map[string]word{
		"secret": many(appendText(&w.Secrets)),
		"types":  once(texts(&w.Types)),
	}); err != nil {
		return err
	}
	s.EventsWebhooks = append(s.EventsWebhooks, w)
	return nil
}

func (a *App) provisionEventsWebhooks() error {
	seen := make(map[string]bool)
	for i := range a.EventsWebhooks {
		webhook, err := eventsWebhook(&a.EventsWebhooks[i])
		if err == nil && seen[webhook.Destination()] {
			err = errors.New("this URL is set twice; name all types in one of them")
		}
		if err != nil {
			return a.at("events_webhook", i, fmt.Errorf("events_webhook: %w", err))
		}
		seen[webhook.Destination()] = true
		a.webhooks = append(a.webhooks, webhook)
	}
	return nil
}

func eventsWebhook(s *EventsWebhookSettings) (*issuer.Webhook, error) {
	cfg := issuer.WebhookConfig{Types: s.Types}
	var err error
	if cfg.URL, err = resolve("url", s.URL); err != nil {
		return nil, err
	}
	secrets, err := resolveAll("secret", s.Secrets)
	if err != nil {
		return nil, err
	}
	for i, text := range secrets {
		secret, err := issuer.EventSecret(issuer.EventsSvix, text)
		if err != nil {
			return nil, fmt.Errorf("secret %d is not whsec_ and base64 of at least 16 bytes; make one with: echo whsec_$(openssl rand -base64 32)", i+1)
		}
		cfg.Secrets = append(cfg.Secrets, secret)
	}
	return issuer.NewWebhook(cfg)
}

// sendEvents starts what sends. It ends with the configuration, before the pool is
// given back; how far it came is in the database.
func (a *App) sendEvents(ctx context.Context, db *pooledDB) (senders []*issuer.WebhookSender) {
	var ended sync.WaitGroup
	a.onRelease(func() error { ended.Wait(); return nil })
	for _, webhook := range a.webhooks {
		sender := &issuer.WebhookSender{Webhook: webhook, Feed: postgres.NewEventFeed(db.db, db.upkeep), Tally: tally{}, Logger: a.logger.Named("events")}
		ended.Go(func() { sender.Run(ctx) })
		senders = append(senders, sender)
	}
	return senders
}
