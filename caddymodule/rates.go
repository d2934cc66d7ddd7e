package caddymodule

import (
	"fmt"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-scope/caddy-scope/ratelimit"
	"github.com/caddy-scope/caddy-scope/validator"
)

// RateSettings bound how often a caller may come.
type RateSettings struct {
	// Rate is how often, such as 30/m: thirty at once, and one more every two
	// seconds. Windows: s, m, h, d, or one such as 10s. Required.
	Rate string `json:"rate"`
	// Per is whom it is counted by: "user", "client", "session" or "address" (an
	// IPv4 address, or the /64 of an IPv6 one). Required.
	Per string `json:"per"`
}

// parseRate reads
//
//	rate <number>/<window> per user | client | session | address
func parseRate(target *[]RateSettings) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		args := d.RemainingArgs()
		if len(args) != 3 || args[1] != "per" {
			return d.Err("rate: a rate and whom it is counted by are expected, such as: rate 30/m per user")
		}
		settings := RateSettings{args[0], args[2]}
		rate, err := settings.rate(false)
		if err != nil {
			return d.WrapErr(err)
		}
		for _, other := range *target {
			if before, _ := other.rate(false); before.Per == rate.Per && before.Window == rate.Window {
				return d.Errf("rate %s: there is one for the same window already, %s", rate, before)
			}
		}
		*target = append(*target, settings)
		return nil
	}
}

// parseRates reads the block behind a rule, if there is one.
func parseRates(d *caddyfile.Dispenser) (rates []RateSettings, err error) {
	err = parseBlock(d, map[string]word{"rate": many(parseRate(&rates))})
	return rates, err
}

// rate returns the rate of the validator.
func (s *RateSettings) rate(shared bool) (validator.Rate, error) {
	rate, err := ratelimit.ParseRate(s.Rate)
	if err != nil {
		return validator.Rate{}, fmt.Errorf("rate: %w", err)
	}
	for _, key := range validator.RateKeys() {
		if string(key) == s.Per {
			return validator.Rate{Rate: rate, Per: key, Shared: shared}, nil
		}
	}
	return validator.Rate{}, fmt.Errorf("rate: %q is not one of user, client, session and address", s.Per)
}

// compileRates returns the rates of a rule: its own, and those of its gate.
func (p *Protect) compileRates(own []RateSettings) ([]validator.Rate, error) {
	var rates []validator.Rate
	for i, settings := range [][]RateSettings{own, p.Rates} {
		for j := range settings {
			rate, err := settings[j].rate(i == 1)
			if err != nil {
				return nil, err
			}
			rates = append(rates, rate)
		}
	}
	return rates, nil
}

// localRates is what a process without a database has counted.
var localRates = sync.OnceValue(func() *ratelimit.Table { return ratelimit.NewTable(nil) })

// limiter counts the callers of gates; nil: nobody does, offline.
func (a *App) limiter() *ratelimit.Limiter {
	if a.runtime == nil {
		return nil
	}
	return a.runtime.limiter
}

// logExhausted tells the owner of a caller that has exhausted a rate, once in a
// window for each.
func (p *Protect) logExhausted(r *http.Request, refusal *validator.Refusal, id string) {
	level, state := zap.DebugLevel, refusal.Limits[0]
	if state.News {
		level = zap.InfoLevel
	}
	if entry := p.logger.Check(level, "rate exhausted"); entry != nil {
		entry.Write(zap.String("request_id", id), zap.String("gate", p.Source), zap.String("rule", p.textOf(refusal.Rule)),
			zap.String("rate", state.Limit.Name), zap.Duration("retry_after", state.Wait), zap.String("method", r.Method), zap.String("path", r.URL.Path),
			zap.Stringer("address", clientAddress(r)), zap.Inline(zapcore.ObjectMarshalerFunc(func(line zapcore.ObjectEncoder) error {
				if refusal.Identity.SessionID != "" {
					line.AddString("client_id", refusal.Identity.ClientID)
					line.AddString("session_id", refusal.Identity.SessionID)
				}
				return nil
			})))
	}
}
