package caddymodule

import (
	"fmt"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/ratelimit"
)

// EndpointRateSettings bound how often callers may ask an endpoint of the
// authorization server.
type EndpointRateSettings struct {
	// Endpoint is authorize, login, token, par, device_authorization, register,
	// introspect, revoke or userinfo. Required.
	Endpoint string `json:"endpoint"`
	// Grant of the token requests that are counted, by its name in the words grants
	// of a client, or token_exchange. Default: all.
	Grant string `json:"grant,omitempty"`
	RateSettings
	// Source is where the rate was written, such as "Caddyfile:20"; errors name it.
	Source string `json:"source,omitempty"`
}

// parseRateLimit reads
//
//	rate_limit {
//		<endpoint> <number>/<window> per client | user | address
//		token      [<grant>] <number>/<window> per client | user | address
//	}
func (s *Settings) parseRateLimit(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.Errf("rate_limit: unexpected %q; a block of lines such as: token 600/m per client", d.Val())
	}
	words := make(map[string]word)
	for _, endpoint := range issuer.RatedEndpoints() {
		words[endpoint] = many(func(d *caddyfile.Dispenser) error {
			settings := EndpointRateSettings{Endpoint: endpoint, Source: source(d)}
			args := d.RemainingArgs()
			if len(args) == 4 && endpoint == "token" {
				settings.Grant, args = args[0], args[1:]
			}
			if len(args) != 3 || args[1] != "per" {
				return d.Errf("%s: a rate and whom it is counted by are expected, such as: %s 60/m per address", endpoint, endpoint)
			}
			settings.Rate, settings.Per = args[0], args[2]
			rate, err := settings.rate()
			if err != nil {
				return d.WrapErr(err)
			}
			for i := range s.RateLimits {
				other := &s.RateLimits[i]
				if before, err := other.rate(); err == nil && before.Endpoint == rate.Endpoint && before.GrantType == rate.GrantType && before.Per == rate.Per && before.Window == rate.Window {
					return d.Errf("%s: there is a rate for the same window already, %s", endpoint, before.Rate)
				}
			}
			s.RateLimits = append(s.RateLimits, settings)
			return nil
		})
	}
	if err := parseBlock(d, words); err != nil {
		return err
	}
	if len(s.RateLimits) == 0 {
		return d.Err("rate_limit: the block is empty; lines such as token 600/m per client are expected")
	}
	return nil
}

// rate returns the rate of the issuer.
func (s *EndpointRateSettings) rate() (issuer.EndpointRate, error) {
	parsed, err := ratelimit.ParseRate(s.Rate)
	if err != nil {
		return issuer.EndpointRate{}, fmt.Errorf("%s: %w", s.Endpoint, err)
	}
	rate := issuer.EndpointRate{Rate: parsed, Endpoint: s.Endpoint, Per: s.Per}
	if s.Grant != "" {
		if rate.GrantType = grantTypes[s.Grant]; s.Grant == "token_exchange" {
			rate.GrantType = "urn:ietf:params:oauth:grant-type:token-exchange"
		}
		if rate.GrantType == "" {
			return issuer.EndpointRate{}, fmt.Errorf("%s: %q is not a grant such as refresh_token", s.Endpoint, s.Grant)
		}
	}
	return rate, rate.Check()
}

// provisionRates checks the rates of the endpoints.
func (a *App) provisionRates() error {
	a.rates = nil
	for i := range a.RateLimits {
		rate, err := a.RateLimits[i].rate()
		if err != nil {
			return atSource(a.RateLimits[i].Source, "rate_limit", err)
		}
		a.rates = append(a.rates, rate)
	}
	return nil
}
