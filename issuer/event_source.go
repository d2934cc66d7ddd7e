package issuer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// EventScheme is how events are signed.
type EventScheme string

const (
	// EventsSvix: the signature of Svix, as Clerk sends it, which is that of
	// Standard Webhooks.
	EventsSvix EventScheme = "svix"
	// EventsHMAC: HMAC-SHA-256 of timestamp, a dot and the body.
	EventsHMAC EventScheme = "hmac"
)

// EventSource is somebody who tells, by POST requests, of accounts that have ended
// elsewhere.
type EventSource struct {
	// Name stands in the address, /oauth/events/NAME; empty: /oauth/events.
	Name   string
	Scheme EventScheme
	// Secrets sign; any of them does, so that one can be replaced. EventSecret
	// reads them. At least one.
	Secrets [][]byte
	// SignatureHeader and TimestampHeader are those of EventsHMAC. The signature is
	// hex or base64, behind "sha256=" or "v1=" or alone, several between commas or
	// spaces; the timestamp is in seconds since 1970.
	SignatureHeader, TimestampHeader string
	// Tolerance is how far the timestamp may be from our time. Zero: 5 minutes.
	Tolerance time.Duration
	// UsersOf is the login method whose users it tells of: it names them by what is
	// their subject there. Empty: it names them by their user id here.
	UsersOf string
	// TypeMember and UserMember are where an event holds its type and its user; dots
	// lead into objects. Empty: "type" and "data.id".
	TypeMember, UserMember string
	// Deleted and Disabled are the events that matter. nil: user.deleted, and
	// user.disabled; of EventsSvix also user.updated with data.banned, as Clerk
	// tells of a ban.
	Deleted, Disabled []EventType

	authority string // of UsersOf
}

// EventType is a type of events.
type EventType struct {
	Name string
	// If is a member that must be true; empty: none.
	If string
}

const (
	defaultEventTolerance = 5 * time.Minute
	maxEventTolerance     = time.Hour
	// minEventSecret is the least length of a secret, in bytes.
	minEventSecret = 16
)

// EventSecret reads a secret as its scheme writes it. The error does not hold it.
func EventSecret(scheme EventScheme, text string) ([]byte, error) {
	secret := []byte(text)
	if scheme == EventsSvix {
		encoded, marked := strings.CutPrefix(text, "whsec_")
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || !marked {
			return nil, errors.New("is not whsec_ and base64; copy it as the page of the endpoint shows it")
		}
		secret = decoded
	}
	if len(secret) < minEventSecret {
		return nil, fmt.Errorf("has %d bytes; at least %d are needed", len(secret), minEventSecret)
	}
	return secret, nil
}

// CheckEventSources refuses sources that could not be told apart or believed. The
// error names the source.
func CheckEventSources(sources []EventSource, methods []LoginMethod) error {
	seen := make(map[string]bool)
	for i := range sources {
		source := sources[i]
		if err := source.prepare(methods); err != nil {
			return fmt.Errorf("%s: %w", source.label(), err)
		}
		if seen[source.Name] {
			return fmt.Errorf("%s is set twice; give one of them another name", source.label())
		}
		seen[source.Name] = true
	}
	return nil
}

func (e *EventSource) label() string {
	return strings.TrimSpace("events " + string(e.Scheme) + " " + e.Name)
}

// prepare checks the source and fills its defaults.
func (e *EventSource) prepare(methods []LoginMethod) error {
	if e.Tolerance == 0 {
		e.Tolerance = defaultEventTolerance
	}
	if e.TypeMember == "" {
		e.TypeMember = "type"
	}
	if e.UserMember == "" {
		e.UserMember = "data.id"
	}
	if e.Deleted == nil {
		e.Deleted = []EventType{{Name: "user.deleted"}}
	}
	if e.Disabled == nil {
		e.Disabled = []EventType{{Name: "user.disabled"}}
		if e.Scheme == EventsSvix {
			e.Disabled = append(e.Disabled, EventType{"user.updated", "data.banned"})
		}
	}
	hmac := e.Scheme == EventsHMAC
	switch {
	case !hmac && e.Scheme != EventsSvix:
		return errors.New("is neither svix nor hmac")
	case e.Name != "" && !methodName.MatchString(e.Name):
		return errors.New("the name has other characters than a-z, 0-9, ., _ and -, or is longer than 40")
	case len(e.Secrets) == 0:
		return errors.New("secret is missing: what the sender signs with")
	case slices.ContainsFunc(e.Secrets, func(secret []byte) bool { return len(secret) < minEventSecret }):
		return fmt.Errorf("a secret has fewer than %d bytes", minEventSecret)
	case hmac && !httpguts.ValidHeaderFieldName(e.SignatureHeader):
		return errors.New("signature_header is missing: the header that holds the signature")
	case hmac && !httpguts.ValidHeaderFieldName(e.TimestampHeader):
		return errors.New("timestamp_header is missing: the header that holds the time, which is signed with the body")
	case hmac && http.CanonicalHeaderKey(e.SignatureHeader) == http.CanonicalHeaderKey(e.TimestampHeader):
		return errors.New("signature_header and timestamp_header are the same")
	case !hmac && (e.SignatureHeader != "" || e.TimestampHeader != ""):
		return errors.New("signature_header and timestamp_header belong to events hmac; svix has its own")
	case e.Tolerance < time.Second || e.Tolerance > maxEventTolerance:
		return fmt.Errorf("tolerance %s is not from 1s to %s", e.Tolerance, maxEventTolerance)
	}
	return e.findAuthority(methods)
}

// findAuthority finds out who names the users of the source.
func (e *EventSource) findAuthority(methods []LoginMethod) error {
	if e.UsersOf == "" {
		return nil
	}
	i := slices.IndexFunc(methods, func(m LoginMethod) bool { return m.Name == e.UsersOf })
	if i < 0 {
		return fmt.Errorf("users_of: there is no login with the name %q", e.UsersOf)
	}
	type authority interface{ Authority() string }
	switch names := any(methods[i].Provider).(type) {
	case authority:
		e.authority = names.Authority()
	default:
		app, ok := methods[i].App.(authority)
		if !ok {
			return fmt.Errorf("users_of: login %s has no names of its own for users", e.UsersOf)
		}
		e.authority = app.Authority()
	}
	return nil
}

// accountEnd is what an event says: which account, and how it ended.
type accountEnd struct {
	Type, Subject string
	Deleted       bool
}

// read finds out what an event says; nil: nothing that matters here. An error
// means that it is one that matters and cannot be understood.
func (e *EventSource) read(body []byte) (*accountEnd, error) {
	var event any
	if err := json.Unmarshal(body, &event); err != nil {
		return nil, errors.New("the event is no JSON")
	}
	kind, ok := member(event, e.TypeMember).(string)
	if !ok {
		return nil, fmt.Errorf("the event has no %s", e.TypeMember)
	}
	end := &accountEnd{Type: kind, Deleted: slices.ContainsFunc(e.Deleted, holds(kind, event))}
	if !end.Deleted && !slices.ContainsFunc(e.Disabled, holds(kind, event)) {
		return nil, nil
	}
	end.Subject, _ = member(event, e.UserMember).(string)
	if err := checkExternalUser(ExternalUser{Subject: end.Subject, UserID: end.Subject}); err != nil {
		return nil, fmt.Errorf("%s of the event: %w", e.UserMember, err)
	}
	return end, nil
}

func holds(kind string, event any) func(EventType) bool {
	return func(t EventType) bool { return t.Name == kind && (t.If == "" || member(event, t.If) == true) }
}

// member returns what stands at the path, or nil.
func member(value any, path string) any {
	for name := range strings.SplitSeq(path, ".") {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	return value
}
