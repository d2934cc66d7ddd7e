package issuer

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// svixRememberFor is longer than Svix tries again (28 hours): an event that it
	// sends anew has the same id, and a time of its own.
	svixRememberFor = 72 * time.Hour

	maxEventID         = 255 // bytes
	maxEventSignatures = 20  // of one event
)

// signedEvent is an event whose sender is proven.
type signedEvent struct {
	id          Digest        // the same for the same event
	rememberFor time.Duration // how long it could come again
}

// verify checks who signed these very bytes, and when. The error is for the log.
func (e *EventSource) verify(h http.Header, body []byte, now time.Time) (signedEvent, error) {
	if e.Scheme == EventsHMAC {
		return e.verifyHMAC(h, body, now)
	}
	return e.verifySvix(h, body, now)
}

// verifySvix: Standard Webhooks, "verifying webhook authenticity". The id and the
// time are signed with the body. Names are those of Svix, or of the standard.
func (e *EventSource) verifySvix(h http.Header, body []byte, now time.Time) (signedEvent, error) {
	prefix := "Svix-"
	if len(h.Values("Svix-Id")) == 0 {
		prefix = "Webhook-"
	}
	id, err := oneHeader(h, prefix+"Id")
	if err != nil {
		return signedEvent{}, err
	}
	at, err := e.timely(h, prefix+"Timestamp", now)
	if err != nil {
		return signedEvent{}, err
	}
	signature, err := oneHeader(h, prefix+"Signature")
	if err != nil {
		return signedEvent{}, err
	}
	if len(id) > maxEventID {
		return signedEvent{}, errors.New("the id is too long")
	}
	var signatures [][]byte
	for _, text := range strings.Fields(signature) {
		version, encoded, _ := strings.Cut(text, ",")
		if raw, err := base64.StdEncoding.DecodeString(encoded); err == nil && version == "v1" { // others are not symmetric
			signatures = append(signatures, raw)
		}
	}
	if err := e.signed(signatures, []byte(id+"."+at+"."), body); err != nil {
		return signedEvent{}, err
	}
	return signedEvent{sha256.Sum256([]byte("svix\x00" + e.Name + "\x00" + id)), svixRememberFor}, nil
}

// verifyHMAC: what is signed is the time, a dot and the body, so that an old
// event cannot be given a new time. The event is known again by all of it.
func (e *EventSource) verifyHMAC(h http.Header, body []byte, now time.Time) (signedEvent, error) {
	at, err := e.timely(h, e.TimestampHeader, now)
	if err != nil {
		return signedEvent{}, err
	}
	header, err := oneHeader(h, e.SignatureHeader)
	if err != nil {
		return signedEvent{}, err
	}
	var signatures [][]byte
	for _, text := range strings.FieldsFunc(header, func(c rune) bool { return c == ',' || c == ' ' }) {
		text = strings.TrimPrefix(strings.TrimPrefix(text, "sha256="), "v1=")
		raw, err := hex.DecodeString(text)
		if err != nil {
			raw, err = base64.StdEncoding.DecodeString(text)
		}
		if err == nil {
			signatures = append(signatures, raw)
		}
	}
	if err := e.signed(signatures, []byte(at+"."), body); err != nil {
		return signedEvent{}, err
	}
	id := sha256.New()
	id.Write([]byte("hmac\x00" + e.Name + "\x00" + at + "."))
	id.Write(body)
	return signedEvent{Digest(id.Sum(nil)), 2*e.Tolerance + time.Minute}, nil
}

// timely returns the time that the header holds, as it is written, if it is of now.
func (e *EventSource) timely(h http.Header, name string, now time.Time) (string, error) {
	text, err := oneHeader(h, name)
	if err != nil {
		return "", err
	}
	seconds, err := strconv.ParseUint(text, 10, 62)
	if err != nil {
		return "", fmt.Errorf("%s holds no time in seconds", name)
	}
	if away := now.Sub(time.Unix(int64(seconds), 0)).Abs(); away > e.Tolerance {
		return "", fmt.Errorf("the time in %s is further from ours than %s; if this happens always, set the clocks", name, e.Tolerance)
	}
	return text, nil
}

// signed reports whether one of the signatures is that of one of the secrets. Every
// pair is compared, each in constant time.
func (e *EventSource) signed(signatures [][]byte, head, body []byte) error {
	if len(signatures) > maxEventSignatures {
		return errors.New("there are too many signatures")
	}
	found := false
	for _, secret := range e.Secrets {
		h := hmac.New(sha256.New, secret)
		h.Write(head)
		h.Write(body)
		want := h.Sum(nil)
		for _, signature := range signatures {
			found = hmac.Equal(want, signature) || found
		}
	}
	if !found {
		return errors.New("no signature is by a secret that stands here")
	}
	return nil
}

// oneHeader returns the value of a header that stands there once.
func oneHeader(h http.Header, name string) (string, error) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", fmt.Errorf("%s does not stand there once", name)
	}
	return values[0], nil
}
