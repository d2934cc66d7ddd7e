package issuer

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

const (
	// webhookTimeout bounds an attempt, from the look-up of the host to the status.
	webhookTimeout = 5 * time.Second
	// maxWebhookAnswer is how much of an answer is read, in bytes, so that the
	// connection can be used again. Nothing in it matters.
	maxWebhookAnswer = 4 << 10
)

// AuditEvent is one row of the audit trail.
type AuditEvent struct {
	ID, Type, UserID, ClientID, SessionID, RequestID, Address string
	At                                                        time.Time
	Metadata                                                  []byte // a JSON object
}

// WebhookConfig says where events go to.
type WebhookConfig struct {
	// URL takes the POST requests: https, or http on this machine. Required.
	URL string
	// Secrets sign, each of them, so that one can be replaced. EventSecret reads
	// them. At least one.
	Secrets [][]byte
	// Types are those that are sent, of AuditEventTypes. None: all.
	Types []string
	// Transport carries the requests. nil: one that verifies TLS.
	Transport http.RoundTripper
	// Now is the clock of the timestamps. nil: time.Now.
	Now func() time.Time
}

// Webhook sends events, each in a request of its own, signed as Standard Webhooks
// has it: what verifySvix verifies.
type Webhook struct {
	cfg         WebhookConfig
	destination string
	client      *http.Client
}

// NewWebhook checks the configuration. It opens no connection.
func NewWebhook(cfg WebhookConfig) (*Webhook, error) {
	parsed, err := url.Parse(cfg.URL)
	switch {
	case err != nil || parsed.Host == "" || parsed.Opaque != "": // the cause would quote it, and it may hold a secret
		return nil, errors.New("this is not a URL, such as https://siem.example.com/hook")
	case parsed.User != nil:
		return nil, errors.New("a URL with a user name or password is not taken: events are authenticated by their signature")
	case parsed.Fragment != "":
		return nil, errors.New("a URL that events are sent to has no fragment")
	case parsed.Scheme == "http" && oauth.IsLoopbackHost(parsed.Hostname()), parsed.Scheme == "https":
	default:
		return nil, fmt.Errorf("%s:// is refused, as events tell of users: use https; http is for this machine only, such as http://127.0.0.1:9000/hook", parsed.Scheme)
	}
	if len(cfg.Secrets) == 0 {
		return nil, errors.New("secret is missing: what the receiver verifies signatures with; make one with: echo whsec_$(openssl rand -base64 32)")
	}
	for _, name := range cfg.Types {
		if err := checkAuditEventType(name); err != nil {
			return nil, fmt.Errorf("types: %w", err)
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			DialContext:     (&net.Dialer{Timeout: webhookTimeout}).DialContext,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true,
			MaxConnsPerHost: 1, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 16 << 10, DisableCompression: true,
		}
	}
	sum := sha256.Sum256([]byte(cfg.URL))
	w := &Webhook{cfg: cfg, destination: fmt.Sprintf("%s#%x", parsed.Host, sum[:8])}
	w.client = &http.Client{Transport: cfg.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return w, nil
}

// Destination tells webhooks apart: the host, and a digest of the whole URL, whose
// path may be a secret.
func (w *Webhook) Destination() string { return w.destination }

// Takes reports whether events of this type are sent.
func (w *Webhook) Takes(eventType string) bool {
	return len(w.cfg.Types) == 0 || slices.Contains(w.cfg.Types, strings.TrimPrefix(eventType, EventTypePrefix))
}

// webhookEvent is the body.
type webhookEvent struct {
	ID        string           `json:"id"`
	Type      string           `json:"type"`
	Timestamp time.Time        `json:"timestamp"`
	Data      webhookEventData `json:"data"`
}

type webhookEventData struct {
	UserID    string          `json:"user_id,omitempty"`
	ClientID  string          `json:"client_id,omitempty"`
	SessionID string          `json:"session_id,omitempty"`
	Address   string          `json:"ip_address,omitempty"`
	RequestID string          `json:"request_id,omitempty"`
	Metadata  json.RawMessage `json:"metadata"`
}

// Send returns nil once the receiver has taken the event: it answered 2xx.
func (w *Webhook) Send(ctx context.Context, event *AuditEvent) error {
	body, err := json.Marshal(webhookEvent{event.ID, event.Type, event.At.UTC(), webhookEventData{
		event.UserID, event.ClientID, event.SessionID, event.Address, event.RequestID, event.Metadata}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.cfg.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL cannot be used")
	}
	at := strconv.FormatInt(w.cfg.Now().Unix(), 10)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "caddy-scope")
	r.Header.Set("Webhook-Id", event.ID)
	r.Header.Set("Webhook-Timestamp", at)
	r.Header.Set("Webhook-Signature", w.sign(event.ID+"."+at+".", body))
	response, err := w.client.Do(r)
	if err != nil {
		var failed *url.Error // it quotes the URL
		if errors.As(err, &failed) {
			err = failed.Err
		}
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, maxWebhookAnswer) // the status has said it
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %d", response.StatusCode)
	}
	return nil
}

// sign has a signature for each secret, as receivers have one of them.
func (w *Webhook) sign(head string, body []byte) string {
	signatures := make([]string, 0, len(w.cfg.Secrets))
	for _, secret := range w.cfg.Secrets {
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(head))
		h.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(h.Sum(nil)))
	}
	return strings.Join(signatures, " ")
}
