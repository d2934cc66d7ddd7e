package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// maxForwardBody bounds what is read of the app's answer, in bytes. Only its
// header counts; the body is read so that the connection can be used again.
const maxForwardBody = 64 << 10

// ForwardConfig makes a Forward.
type ForwardConfig struct {
	// URL of the app that says who is signed in at a browser, by GET. Required.
	URL string
	// PlainHTTP lets URL be plain http over a network that is the owner's.
	PlainHTTP bool
	// Copy are the headers of the browser that the app gets. nil: Cookie.
	Copy []string
	// User is the header of the answer that names the user. Required.
	User string
	// Name is the header with what pages call the user; empty: there is none.
	Name string
	// ClaimHeaders are further headers: claims by their names.
	ClaimHeaders map[string]ClaimHeader
	// Require are claims that must have, or among their list hold, one of the
	// values.
	Require map[string][]string
	Return
	// Timeout bounds the question. Zero: DefaultTimeout.
	Timeout time.Duration
}

// ClaimHeader is a header of the app's answer that becomes a claim.
type ClaimHeader struct {
	Header string
	List   bool // comma-separated values
}

// Forward signs users in by asking the owner's own app whom their browser's
// cookie belongs to.
type Forward struct {
	cfg    ForwardConfig
	claims Claims
	client *http.Client
}

var _ issuer.App = (*Forward)(nil)

// hopByHop are headers of one connection, and those that the question makes
// itself. RFC 9110 section 7.6.1.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
	"Host", "Content-Length", "Expect", "Accept-Encoding",
}

// NewForward checks the configuration. It sends nothing.
func NewForward(cfg ForwardConfig) (*Forward, error) {
	err := checkURL("the address", cfg.URL)
	if u, parsed := url.Parse(cfg.URL); err != nil && !(cfg.PlainHTTP && parsed == nil && u.Scheme == "http" && u.Host != "" && u.User == nil && u.Fragment == "") {
		return nil, err
	}
	if cfg.Copy == nil {
		cfg.Copy = []string{"Cookie"}
	}
	cfg.Copy = slices.Clone(cfg.Copy)
	for i, name := range cfg.Copy {
		cfg.Copy[i] = textproto.CanonicalMIMEHeaderKey(name)
		if !isHeaderName(name) || slices.Contains(hopByHop, cfg.Copy[i]) {
			return nil, fmt.Errorf("copy %q is not a header that can be sent on", name)
		}
	}
	if cfg.User == "" {
		return nil, errors.New("user_header is missing: the header of the app's answer that names the user")
	}
	f := &Forward{cfg: cfg, client: newClient(cfg.Timeout, maxForwardBody), claims: Claims{Name: "name", Require: cfg.Require}}
	from := map[string]string{"user_header": cfg.User}
	if cfg.Name != "" {
		from["name_header"] = cfg.Name
	}
	for name, claim := range cfg.ClaimHeaders {
		if name == "sub" || name == "name" {
			return nil, fmt.Errorf("claim %s comes from user_header and name_header", name)
		}
		from["claim "+name] = claim.Header
		f.claims.Keep = append(f.claims.Keep, name)
	}
	slices.Sort(f.claims.Keep)
	for what, name := range from {
		if !isHeaderName(name) {
			return nil, fmt.Errorf("%s: %q is not a header name", what, name)
		}
	}
	for name := range cfg.Require {
		if _, ok := cfg.ClaimHeaders[name]; !ok {
			return nil, fmt.Errorf("require %s: no claim of that name comes from a header; add: claim %s <header>", name, name)
		}
	}
	return f, f.cfg.Return.check()
}

// Identify is described at issuer.App. Only an answer of success that names a
// user is one about a user; where the app cannot say, nobody is signed in.
func (f *Forward) Identify(ctx context.Context, header http.Header) (issuer.ExternalUser, error) {
	var none issuer.ExternalUser
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cfg.URL, nil)
	if err != nil {
		return none, err
	}
	r.Header.Set("User-Agent", "") // none of ours
	found := false
	for _, name := range f.cfg.Copy {
		if values := header.Values(name); len(values) > 0 {
			r.Header[name] = slices.Clone(values)
			found = true
		}
	}
	if !found { // nothing to ask about
		return none, signedOut(errors.New("the browser sends none of the headers that are copied"))
	}
	response, err := f.client.Do(r)
	if err != nil {
		return none, fmt.Errorf("ask the app: %w", withoutURL(err))
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return none, fmt.Errorf("read the app's answer: %w", err)
	}
	switch status := response.StatusCode; {
	case status == http.StatusUnauthorized, status >= 300 && status < 400:
		return none, signedOut(fmt.Errorf("the app answered %d", status))
	case status == http.StatusForbidden:
		return none, refused("the app answered 403")
	case status < 200 || status >= 300:
		return none, fmt.Errorf("the app answered %d", status)
	}
	claims, err := f.read(response.Header)
	if err != nil {
		return none, err
	}
	if claims["sub"] == nil {
		return none, signedOut(fmt.Errorf("the app answered %d without %s", response.StatusCode, f.cfg.User))
	}
	user, err := f.claims.UserOf(f.cfg.URL, claims)
	if err != nil {
		return none, refused("%w", err)
	}
	return user, nil
}

// read makes claims of the headers of the answer. One that is there twice is not
// taken for either.
func (f *Forward) read(header http.Header) (map[string]any, error) {
	claims := make(map[string]any)
	take := func(claim, name string, list bool) error {
		switch values := header.Values(name); {
		case len(values) > 1:
			return fmt.Errorf("the app's answer has %s twice", name)
		case len(values) == 0 || values[0] == "":
		case list:
			items := []any{}
			for item := range strings.SplitSeq(values[0], ",") {
				if item = strings.TrimSpace(item); item != "" {
					items = append(items, item)
				}
			}
			claims[claim] = items
		default:
			claims[claim] = values[0]
		}
		return nil
	}
	if err := take("sub", f.cfg.User, false); err != nil {
		return nil, err
	}
	if f.cfg.Name != "" {
		if err := take("name", f.cfg.Name, false); err != nil {
			return nil, err
		}
	}
	for name, claim := range f.cfg.ClaimHeaders {
		if err := take(name, claim.Header, claim.List); err != nil {
			return nil, err
		}
	}
	return claims, nil
}

// Authority is what identities of the app's users are kept under.
func (f *Forward) Authority() string { return f.cfg.URL }

// SignInURL is described at issuer.App.
func (f *Forward) SignInURL(returnTo string) string { return f.cfg.Return.address(returnTo) }
