package caddymodule

import (
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// EventSettings is somebody who tells, by POST requests, of accounts that have
// ended elsewhere.
type EventSettings struct {
	// Scheme is how events are signed: "svix", as Clerk does it (Standard Webhooks),
	// or "hmac": HMAC-SHA-256 of the time, a dot and the body. Required.
	Scheme string `json:"scheme,omitempty"`
	// Name tells this sender from others; it stands in the address,
	// <issuer>/oauth/events/<name>. Default: none, and <issuer>/oauth/events.
	Name string `json:"name,omitempty"`
	// Secrets sign; any of them does, so that one can be replaced by the next. Those
	// of svix begin with whsec_; others are used as they are. At least 16 bytes.
	// Placeholders. Required.
	Secrets []string `json:"secrets,omitempty"`
	// SignatureHeader holds the signature of hmac: hex or base64, behind "sha256=",
	// "v1=" or nothing. Required for hmac.
	SignatureHeader string `json:"signature_header,omitempty"`
	// TimestampHeader holds the time of hmac, in seconds since 1970. Required for
	// hmac.
	TimestampHeader string `json:"timestamp_header,omitempty"`
	// Tolerance is how far the time of an event may be from ours. At most 1h.
	// Default: 5m.
	Tolerance caddy.Duration `json:"tolerance,omitempty"`
	// UsersOf is the name of the login whose users are told of, by what is their
	// `sub` there. Default: events name users by their user id here.
	UsersOf string `json:"users_of,omitempty"`
	// Type is the member of an event that holds its type; dots lead into objects.
	// Default: "type".
	Type string `json:"type,omitempty"`
	// User is the member that names the user. Default: "data.id".
	User string `json:"user,omitempty"`
	// Deleted are the events that delete a user. Default: user.deleted.
	Deleted []EventTypeSettings `json:"deleted,omitempty"`
	// Disabled are the events that disable a user. Default: user.disabled, and of
	// svix user.updated if data.banned is true.
	Disabled []EventTypeSettings `json:"disabled,omitempty"`
}

// EventTypeSettings is a type of events.
type EventTypeSettings struct {
	// Type is its name. Required.
	Type string `json:"type,omitempty"`
	// If is a member of the event that must be true. Default: none.
	If string `json:"if,omitempty"`
}

// parseEvents reads
//
//	events svix|hmac {
//		name             <name>              # the address is /oauth/events
//		secret           <secret>            # again while it is being replaced
//		signature_header <header>            # of hmac
//		timestamp_header <header>            # of hmac
//		tolerance        <duration>          # 5m
//		users_of         <login>             # users are named by user id
//		type             <member>            # type
//		user             <member>            # data.id
//		deleted          <type> [<member>]   # user.deleted; again for each
//		disabled         <type> [<member>]   # user.disabled; again for each
//	}
func (s *Settings) parseEvents(d *caddyfile.Dispenser) error {
	e := EventSettings{}
	if err := oneOf(&e.Scheme, string(issuer.EventsSvix), string(issuer.EventsHMAC))(d); err != nil {
		return err
	}
	if d.NextArg() {
		return d.Errf("events %s: unexpected %q", e.Scheme, d.Val())
	}
	if err := parseBlock(d, map[string]word{
		"name":             once(text(&e.Name)),
		"secret":           many(appendText(&e.Secrets)),
		"signature_header": once(text(&e.SignatureHeader)),
		"timestamp_header": once(text(&e.TimestampHeader)),
		"tolerance":        once(period(&e.Tolerance)),
		"users_of":         once(text(&e.UsersOf)),
		"type":             once(text(&e.Type)),
		"user":             once(text(&e.User)),
		"deleted":          many(parseEventType(&e.Deleted)),
		"disabled":         many(parseEventType(&e.Disabled)),
	}); err != nil {
		return err
	}
	s.Events = append(s.Events, e)
	return nil
}

func parseEventType(target *[]EventTypeSettings) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) (err error) {
		kind := EventTypeSettings{}
		if kind.Type, err = value(d); err != nil {
			return err
		}
		if d.NextArg() {
			kind.If = d.Val()
		}
		*target = append(*target, kind)
		return nil
	}
}

// provisionEvents checks those who tell of accounts, each against the logins.
func (a *App) provisionEvents() error {
	var logins issuer.Config
	if err := a.configureLogins(&logins); err != nil {
		return err
	}
	for i := range a.Events {
		source, err := eventSource(&a.Events[i])
		if err == nil {
			a.eventSources = append(a.eventSources, source)
			err = issuer.CheckEventSources(a.eventSources, logins.Methods)
		}
		if err != nil {
			return a.at("events", i, err)
		}
	}
	return nil
}

func eventSource(s *EventSettings) (issuer.EventSource, error) {
	source := issuer.EventSource{
		Name: s.Name, Scheme: issuer.EventScheme(s.Scheme), SignatureHeader: s.SignatureHeader, TimestampHeader: s.TimestampHeader,
		Tolerance: time.Duration(s.Tolerance), UsersOf: s.UsersOf, TypeMember: s.Type, UserMember: s.User,
		Deleted: eventTypes(s.Deleted), Disabled: eventTypes(s.Disabled),
	}
	secrets, err := resolveAll("secret", s.Secrets)
	if err != nil {
		return source, fmt.Errorf("events %s: %w", s.Scheme, err)
	}
	for i, text := range secrets {
		secret, err := issuer.EventSecret(source.Scheme, text)
		if err != nil {
			return source, fmt.Errorf("events %s: secret %d %w", s.Scheme, i+1, err)
		}
		source.Secrets = append(source.Secrets, secret)
	}
	return source, nil
}

func eventTypes(settings []EventTypeSettings) (types []issuer.EventType) {
	for _, s := range settings {
		types = append(types, issuer.EventType{Name: s.Type, If: s.If})
	}
	return types
}
