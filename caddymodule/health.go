package caddymodule

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// health answers "is it healthy?", of one node and of the database that it shares
// with others.
type health struct {
	Healthy  bool            `json:"healthy"`
	Problems []string        `json:"problems,omitempty"` // why it is not
	Database *databaseHealth `json:"database,omitempty"`
	Schema   *schemaHealth   `json:"schema,omitempty"` // nil: the database does not answer
	Keys     []keyHealth     `json:"keys,omitempty"`
	Rows     *rowHealth      `json:"rows,omitempty"`
	Upkeep   *upkeepHealth   `json:"upkeep,omitempty"`
	Errors   []loggedError   `json:"errors,omitempty"` // warnings and errors of this node's log, the latest first
}

// databaseHealth is postgres.PoolState; see there.
type databaseHealth struct {
	Answers     bool       `json:"answers"`
	Server      string     `json:"server_version,omitempty"`
	Acquired    int        `json:"acquired_connections"`
	Idle        int        `json:"idle_connections"`
	Max         int        `json:"max_connections"`
	Failures    int64      `json:"failures"`
	LastFailure string     `json:"last_failure,omitempty"`
	FailedAt    *time.Time `json:"failed_at,omitempty"`
}

type schemaHealth struct {
	Version int `json:"version"`
	Latest  int `json:"latest"` // that this binary knows
}

type keyHealth struct {
	KID   string     `json:"kid"`
	Phase string     `json:"phase"` // published, active, retiring; of the configuration: active or verifies
	Since *time.Time `json:"since,omitempty"`
}

// rowHealth is how many there are; estimated where there are many.
type rowHealth struct {
	Sessions   postgres.RowCount `json:"sessions"` // on record, ended ones too
	Users      postgres.RowCount `json:"users"`
	Registered postgres.RowCount `json:"registered_clients"`
	Events     postgres.RowCount `json:"events"`
}

type upkeepHealth struct {
	Cleaned     *time.Time `json:"last_success,omitempty"`
	Removed     int64      `json:"removed_rows"`
	Failures    int64      `json:"failures"`
	LastFailure string     `json:"last_failure,omitempty"`
}

const (
	// upkeepLate is when rows that nobody removes are worth a word; a pass is due
	// every minute.
	upkeepLate = 30 * time.Minute
	// clocksApart is postgres' tolerance, in seconds.
	clocksApart = 2
)

// health looks at everything. The database is asked once it is known to answer.
func (a *App) health(ctx context.Context, ready bool) (h health) {
	h.Errors = lastErrors.list()
	if pool := a.runtime.pool; pool != nil {
		h.Database = databaseHealthOf(pool.State())
		h.Database.Answers = ready
	}
	if ready && a.runtime.pool != nil {
		survey, err := a.runtime.pool.Survey(ctx)
		if err != nil {
			h.Problems = append(h.Problems, "the database answers, but not what it holds: "+err.Error())
		} else {
			h.Database.Server = survey.Server
			h.Schema = &schemaHealth{survey.Version, survey.Latest}
			h.Rows = &rowHealth{survey.Sessions, survey.Users, survey.Registered, survey.Events}
		}
	}
	h.Keys = a.keyHealth(ctx, ready)
	if upkeep := a.runtime.upkeep; upkeep != nil {
		state := upkeep.State()
		h.Upkeep = &upkeepHealth{Cleaned: orNil(state.Cleaned), Removed: state.Removed, Failures: state.Failures, LastFailure: state.LastFailure}
	}
	return h
}

func databaseHealthOf(s postgres.PoolState) *databaseHealth {
	return &databaseHealth{Answers: s.Answers, Acquired: s.Acquired, Idle: s.Idle, Max: s.Max,
		Failures: s.Failures, LastFailure: s.LastFailure, FailedAt: orNil(s.LastFailureAt)}
}

func orNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// keyHealth tells of the keys that this node knows, with their phases where they
// are kept in the database and it answers.
func (a *App) keyHealth(ctx context.Context, ready bool) (keys []keyHealth) {
	if a.runtime.keys == nil {
		return nil
	}
	if len(a.keys) == 0 && ready {
		if stored, err := a.runtime.db.SigningKeys(ctx); err == nil {
			for _, key := range stored {
				keys = append(keys, keyHealth{key.KID, string(key.Phase), orNil(key.Since)})
			}
			return keys
		}
	}
	signs, verify := a.runtime.keys.KeyIDs()
	slices.Sort(verify)
	for _, kid := range verify {
		phase := "verifies"
		if kid == signs {
			phase = "active"
		}
		keys = append(keys, keyHealth{KID: kid, Phase: phase})
	}
	return keys
}

// judge says what is wrong.
func (s *status) judge(now time.Time) {
	problem := func(wrong bool, format string, args ...any) {
		if wrong {
			s.Problems = append(s.Problems, fmt.Sprintf(format, args...))
		}
	}
	if s.Remote == remoteIntrospection {
		problem(!s.Ready, "the keys of the authorization server cannot be had: requests with a token are answered with 503")
	} else {
		problem(!s.Ready, "the database does not answer, or takes no writes")
	}
	if s.View != nil {
		problem(!s.View.Fresh, "the view is not fresh: every request reads Postgres")
	}
	problem(s.ClockSkew > clocksApart || s.ClockSkew < -clocksApart, "the clocks of this node and of the database differ by %.1f s", s.ClockSkew)
	if s.Schema != nil {
		problem(s.Schema.Version < s.Schema.Latest, "the tables are of version %d; this binary needs %d: run caddy oauth migrate", s.Schema.Version, s.Schema.Latest)
		problem(s.Schema.Version > s.Schema.Latest, "the tables are of version %d, which this binary does not know", s.Schema.Version)
	}
	problem(s.Remote == "" && !slices.ContainsFunc(s.Keys, func(k keyHealth) bool { return k.Phase == "active" }), "no key signs")
	if s.Upkeep != nil && s.Upkeep.Cleaned != nil {
		late := now.Sub(*s.Upkeep.Cleaned)
		problem(late > upkeepLate, "expired rows were removed %s ago for the last time", late.Round(time.Second))
	}
	s.Healthy = len(s.Problems) == 0
}

// statusLine is one line of the screen and of the page.
type statusLine struct{ Name, Value string }

// lines tell the whole in words.
func (s *status) lines(now time.Time) (lines []statusLine) {
	add := func(name, format string, args ...any) {
		lines = append(lines, statusLine{name, fmt.Sprintf(format, args...)})
	}
	if s.Remote == "" {
		add("issuer", "%s", s.Issuer)
	} else {
		add("issuer", "%s, elsewhere: this Caddy only gates", s.Issuer)
	}
	s.addDatabase(add, now)
	switch v := s.View; {
	case s.Remote == remoteIntrospection:
		add("sessions", "asked about at the authorization server (introspection); what it says counts for %s", seconds(s.AnswersCount))
	case v == nil:
		add("view", "none: session_check strict, every request reads Postgres")
	case v.Fresh:
		add("view", "fresh: %s old, at most %s; admits %s sessions and refuses %s by itself", seconds(v.Staleness), seconds(v.MaxStaleness), thousands(int64(v.Known)), thousands(int64(v.Revocations)))
	default:
		add("view", "not fresh: %s old, at most %s; every request reads Postgres. %s", seconds(v.Staleness), seconds(v.MaxStaleness), v.Failure)
	}
	if s.Remote != remoteIntrospection { // which tells no time
		add("clocks", "%s apart", seconds(max(s.ClockSkew, -s.ClockSkew)))
	}
	for _, key := range s.Keys {
		since := ""
		if key.Since != nil {
			since = " for " + ago(now, *key.Since)
		}
		add("key", "%s  %s%s", key.KID, key.Phase, since)
	}
	registered := ""
	if s.Rows != nil && s.Rows.Registered.Rows > 0 {
		registered = fmt.Sprintf(", %s registered themselves", rows(s.Rows.Registered))
	}
	if s.Remote == "" {
		add("clients", "%d in the configuration%s", len(s.Clients), registered)
	}
	if s.Rows != nil {
		add("sessions", "%s on record", rows(s.Rows.Sessions))
		add("users", "%s", rows(s.Rows.Users))
		add("events", "%s", rows(s.Rows.Events))
	}
	if s.Upkeep != nil {
		last := "no pass yet"
		if s.Upkeep.Cleaned != nil {
			last = "last pass " + ago(now, *s.Upkeep.Cleaned) + " ago"
		}
		add("upkeep", "%s; %s rows removed by this node, %d failures", last, thousands(s.Upkeep.Removed), s.Upkeep.Failures)
	}
	return lines
}

func (s *status) addDatabase(add func(name, format string, args ...any), now time.Time) {
	d := s.Database
	if d == nil {
		return
	}
	answers := "does not answer, or takes no writes"
	if d.Answers {
		answers = "answers: Postgres " + d.Server
	}
	failed := ""
	if d.FailedAt != nil {
		failed = fmt.Sprintf("; %s calls failed, the last %s ago", thousands(d.Failures), ago(now, *d.FailedAt))
	}
	add("database", "%s; %d of %d connections in use%s", answers, d.Acquired, d.Max, failed)
	if s.Schema != nil {
		fit := "up to date"
		if s.Schema.Version != s.Schema.Latest {
			fit = fmt.Sprintf("this binary is of version %d", s.Schema.Latest)
		}
		add("schema", "version %d, %s", s.Schema.Version, fit)
	}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Millisecond).String()
}

func ago(now, then time.Time) string { return max(0, now.Sub(then)).Round(time.Second).String() }

func rows(c postgres.RowCount) string {
	if c.Estimated {
		return "about " + thousands(c.Rows)
	}
	return thousands(c.Rows)
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int64) string {
	digits := fmt.Sprint(n)
	var groups []string
	for len(digits) > 3 {
		groups = append([]string{digits[len(digits)-3:]}, groups...)
		digits = digits[:len(digits)-3]
	}
	return strings.Join(append([]string{digits}, groups...), ",")
}
