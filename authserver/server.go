package authserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ErrUnavailable: the authorization server cannot be asked now, and what is known
// of it is too old. It is no verdict about a token.
var ErrUnavailable = errors.New("the authorization server cannot be asked")

const (
	defaultTimeout = 5 * time.Second
	// maxDocument bounds an answer, in bytes: metadata have some 3 KiB, a set of
	// three keys has one.
	maxDocument = 64 << 10
	maxHeader   = 16 << 10
)

// Config makes a Server.
type Config struct {
	// Issuer is the identifier of the authorization server, to the byte as in its
	// metadata and in `iss`. Required.
	Issuer string
	// KeysURL is where its JWK set is. Empty: where its metadata say.
	KeysURL string
	// ClientID and ClientSecret are by what the resource server introspects tokens, as
	// client_secret_basic. Empty: it cannot, and ReadTokenSession fails.
	ClientID, ClientSecret string
	// MaxStaleness is how old an answer about a token may be: no request is admitted
	// later than this after its session was revoked. Zero: 5 seconds.
	MaxStaleness time.Duration
	// RootCAs verify its certificate. nil: those of the system.
	RootCAs *x509.CertPool
	// Timeout bounds one request to it. Zero: 5 seconds.
	Timeout time.Duration
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Server is an authorization server elsewhere. It keeps what it has read of it;
// share one. Safe for concurrent use.
type Server struct {
	cfg  Config
	http *http.Client

	metadata atomic.Pointer[metadata] // nil: not read yet
	keys     atomic.Pointer[keySet]   // nil: not read yet

	answers   *lru.Cache[string, answer] // by token
	questions singleflight.Group         // by resource and token

	mu      sync.Mutex
	reading chan struct{} // closed when the keys have been read; nil: nobody reads
	tried   time.Time     // when the keys were asked for last
	failure error         // of that
}

// New checks the configuration. It sends nothing.
func New(cfg Config) (*Server, error) {
	if err := oauth.CheckIdentifier("issuer", cfg.Issuer); err != nil {
		return nil, err
	}
	if cfg.KeysURL != "" {
		if err := checkURL(cfg.KeysURL); err != nil {
			return nil, fmt.Errorf("the address of the keys %q: %w", cfg.KeysURL, err)
		}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxStaleness == 0 {
		cfg.MaxStaleness = DefaultMaxStaleness
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	answers, err := lru.New[string, answer](maxAnswers)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12}
	transport.MaxResponseHeaderBytes = maxHeader
	return &Server{cfg: cfg, answers: answers, http: &http.Client{
		Transport: transport,
		// A document is the one at its own address, and a secret is not sent on.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// checkURL holds addresses to TLS, but for servers on this machine.
func checkURL(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("it is no https URL")
	case u.Scheme == "http" && !oauth.IsLoopbackHost(u.Hostname()):
		return errors.New("plain http is for loopback hosts only")
	case u.User != nil:
		return errors.New("it holds a user name")
	}
	return nil
}

// do sends the request and reads an answer of status 200 in JSON into v. Others
// may wait for the same answer: it is not the caller's to end.
func (s *Server) do(ctx context.Context, timeout time.Duration, make func(context.Context) (*http.Request, error), v any) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
	defer cancel()
	r, err := make(ctx)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	response, err := s.http.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer of %s: %w", r.URL.Redacted(), err)
	case len(body) > maxDocument:
		return fmt.Errorf("the answer of %s is longer than %d bytes", r.URL.Redacted(), maxDocument)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("%s answers %s", r.URL.Redacted(), response.Status)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the answer of %s is not the JSON that is expected", r.URL.Redacted())
	}
	return nil
}

func (s *Server) get(ctx context.Context, address string, v any) error {
	return s.do(ctx, s.cfg.Timeout, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	}, v)
}
