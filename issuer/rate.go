package issuer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// EndpointRate bounds how often callers may ask an endpoint.
type EndpointRate struct {
	ratelimit.Rate
	// Endpoint is one of RatedEndpoints.
	Endpoint string
	// GrantType of the token requests that are counted; empty: all.
	GrantType string
	// Per is whom it is counted by: PerClient once it is authenticated, PerUser once
	// the grant says who that is, PerAddress (an IPv4 address, or the /64 of an IPv6
	// one).
	Per string
}

// The keys of EndpointRate.
const (
	PerClient  = "client"
	PerUser    = "user"
	PerAddress = "address"
)

// ratedEndpoints are the endpoints that may have a rate, and whom they know.
var ratedEndpoints = []struct {
	name, path string
	keys       []string
}{
	{"authorize", "/oauth/authorize", []string{PerAddress}},
	{"login", "/oauth/login", []string{PerAddress}},
	{"token", "/oauth/token", []string{PerClient, PerUser, PerAddress}},
	{"par", "/oauth/par", []string{PerClient, PerAddress}},
	{"device_authorization", "/oauth/device_authorization", []string{PerClient, PerAddress}},
	{"register", registerPath, []string{PerAddress}},
	{"introspect", "/oauth/introspect", []string{PerClient, PerAddress}},
	{"revoke", "/oauth/revoke", []string{PerClient, PerAddress}},
	{"userinfo", userInfoPath, []string{PerAddress}},
}

// RatedEndpoints returns the endpoints that may have a rate.
func RatedEndpoints() []string {
	var names []string
	for _, e := range ratedEndpoints {
		names = append(names, e.name)
	}
	return names
}

// Check reports what is wrong with the rate.
func (r EndpointRate) Check() error {
	if err := r.Rate.Check(); err != nil {
		return fmt.Errorf("rate %w", err)
	}
	i := slices.Index(RatedEndpoints(), r.Endpoint)
	switch {
	case i < 0:
		return fmt.Errorf("%q is not an endpoint that may have a rate", r.Endpoint)
	case !slices.Contains(ratedEndpoints[i].keys, r.Per):
		return fmt.Errorf("%s: it can be counted per %s, not per %q", r.Endpoint, strings.Join(ratedEndpoints[i].keys, " or "), r.Per)
	case r.GrantType != "" && r.Endpoint != "token":
		return fmt.Errorf("%s: it takes no grants", r.Endpoint)
	case r.GrantType != "" && !slices.Contains(GrantTypes(), r.GrantType):
		return fmt.Errorf("token: %q is not a grant type", r.GrantType)
	case r.Per == PerUser && r.GrantType != "" && r.GrantType != grantAuthorizationCode && r.GrantType != grantRefreshToken:
		return errors.New("token: per user is for authorization_code and refresh_token, which say who the user is")
	}
	return nil
}

// endpointLimit is a compiled EndpointRate.
type endpointLimit struct {
	*ratelimit.Limit
	EndpointRate
}

// deadGrants is how often one grant that is expired, used or revoked may come again:
// clients are known to retry without end. Until then they hear invalid_grant, which
// tells them to stop; then to come later. PROTOCOL trap 16.
var deadGrants = ratelimit.Rate{Quota: 120, Window: time.Minute}

// openRates compiles the rates.
func (s *Server) openRates() (err error) {
	if s.limiter = s.cfg.Limiter; s.limiter == nil {
		s.limiter = ratelimit.NewLimiter(ratelimit.NewTableOf(1024, s.cfg.Now), s.cfg.Secrets.RateKey())
	}
	if s.deadGrants, err = ratelimit.NewLimit(s.cfg.Issuer+" dead grant", "dead grant", deadGrants); err != nil {
		return err
	}
	s.limits = make(map[string][]endpointLimit)
	for i, rate := range s.cfg.Rates {
		if err := rate.Check(); err != nil {
			return err
		}
		name := rate.Endpoint + " " + rate.Rate.String() + " per " + rate.Per
		if rate.GrantType != "" {
			name = rate.Endpoint + " " + rate.GrantType + " " + rate.Rate.String() + " per " + rate.Per
		}
		for _, other := range s.cfg.Rates[:i] {
			if other.Endpoint == rate.Endpoint && other.GrantType == rate.GrantType && other.Per == rate.Per && other.Window == rate.Window {
				return fmt.Errorf("%s: there is a rate for the same window already, %s", name, other.Rate)
			}
		}
		limit, err := ratelimit.NewLimit(s.cfg.Issuer, name, rate.Rate)
		if err != nil {
			return err
		}
		for _, e := range ratedEndpoints {
			if e.name == rate.Endpoint {
				s.limits[e.path] = append(s.limits[e.path], endpointLimit{limit, rate})
			}
		}
	}
	return nil
}

// limited counts the requests of an endpoint that has rates by address, and lets
// those further down count by what they learn. Preflights are not counted.
func (s *Server) limited(path string, next http.HandlerFunc) http.HandlerFunc {
	limits := s.limits[path]
	if limits == nil {
		return next
	}
	page := path == "/oauth/authorize" || path == "/oauth/login"
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions {
			next(w, r)
			return
		}
		if v, ok := r.Context().Value(visitKey{}).(*visit); ok {
			v.limits, v.header = limits, w.Header()
		}
		err := s.count(r.Context(), PerAddress, s.addressKey(r), "")
		switch {
		case err == nil:
			next(w, r)
		case page:
			s.errorWords(w, r, http.StatusTooManyRequests, "patience")
		default:
			s.writeError(w, r, err)
		}
	}
}

// addressKey is what an address is counted as; empty: it is not known, and strangers
// must not share one count.
func (s *Server) addressKey(r *http.Request) string {
	if network := networkOf(s.cfg.ClientAddress(r)); network.IsValid() {
		return network.String()
	}
	return ""
}

// count counts a request by one key, under the rates of its endpoint that are for one
// of the grants; "" is for all. The error is a *throttledError. What the answer says
// of rates stands in its header then.
func (s *Server) count(ctx context.Context, per, caller string, grants ...string) error {
	v, ok := ctx.Value(visitKey{}).(*visit)
	if !ok || v.limits == nil || caller == "" {
		return nil
	}
	for _, limit := range v.limits {
		if limit.Per != per || !slices.Contains(grants, limit.GrantType) {
			continue
		}
		state := s.limiter.TakeOne(limit.Limit, caller)
		v.states = append(v.states, state)
		ratelimit.SetHeader(v.header, v.states)
		if state.Allowed {
			continue
		}
		if state.News {
			s.cfg.Logger.Info("rate exhausted", zap.String("request_id", v.requestID), zap.String("rate", state.Limit.Name), zap.String(per, caller), zap.Duration("retry_after", state.Wait))
		}
		return &throttledError{retryAfter: state.Wait, rate: true, grant: grants[len(grants)-1]}
	}
	return nil
}

// countsUsers reports whether requests of the grant are counted by user.
func (s *Server) countsUsers(grant string) bool {
	return slices.ContainsFunc(s.limits["/oauth/token"], func(l endpointLimit) bool {
		return l.Per == PerUser && (l.GrantType == "" || l.GrantType == grant)
	})
}

// presentedGrant names what the client of a token request presents; empty: nothing
// that can be dead. It is that client's: nobody makes a grant seem dead to another.
func presentedGrant(client *Client, p parameters) string {
	var presented string
	switch p["grant_type"] {
	case grantRefreshToken:
		presented = p["refresh_token"]
	case grantAuthorizationCode:
		presented = p["code"]
	case grantDeviceCode:
		presented = p["device_code"]
	}
	if presented == "" {
		return ""
	}
	return client.ID + " " + presented
}

// checkDeadGrant refuses what was refused too often of late.
func (s *Server) checkDeadGrant(presented string) error {
	if presented == "" {
		return nil
	}
	if state := s.limiter.Peek(s.deadGrants, presented); !state.Allowed {
		return &throttledError{retryAfter: state.Wait}
	}
	return nil
}

// noteDeadGrant counts a grant that was refused for good.
func (s *Server) noteDeadGrant(presented string, err error) {
	var e *oauth.Error
	if presented != "" && errors.As(err, &e) && e.Code == oauth.CodeInvalidGrant {
		s.limiter.TakeOne(s.deadGrants, presented)
	}
}
