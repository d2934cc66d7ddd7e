package postgres

import (
	"context"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// viewScene is a view whose polls and reads the test makes happen, in an order
// that a database produces once in a million times.
type viewScene struct {
	*SessionView
	t      *testing.T
	id     uuid.UUID
	rows   int    // times the row was read
	during func() // runs while the row is being read
	row    func() sessionState
	kept   validator.Session
}

// onServer is who answers the reads and the polls.
const onServer = 7

func newViewScene(t *testing.T) *viewScene {
	s := &viewScene{t: t, id: uuid.New(), during: func() {}}
	s.alive(time.Hour, onServer)
	s.SessionView = NewSessionView(&DB{logger: zap.NewNop()}, &SessionReader{}, time.Second)
	s.read = func(context.Context, uuid.UUID) (sessionState, error) {
		s.rows++
		state := s.row()
		s.during()
		return state, nil
	}
	return s
}

// alive lets the row be that of a live session.
func (s *viewScene) alive(left time.Duration, server int64) {
	s.row = func() sessionState {
		return sessionState{session: &validator.Session{UserID: "ada", ClientID: "app", Until: time.Now().Add(left)}, server: server}
	}
}

func (s *viewScene) poll(revocations ...revocation) {
	s.apply(time.Now(), onServer, false, revocations)
}
func (s *viewScene) startOver() { s.apply(time.Now(), onServer, true, nil) }

// ask asks as a gate does: first whether what it was told before still holds.
func (s *viewScene) ask() (err error) {
	if s.holds(s.kept) {
		return nil
	}
	s.kept, err = s.ReadSession(s.t.Context(), s.id.String())
	return err
}

// holds reports whether the view would answer with this session without a look.
func (s *viewScene) holds(session validator.Session) bool {
	held, ok := s.Held(session.Handle)
	if ok && (held.UserID != session.UserID || held.ClientID != session.ClientID || held.Handle != session.Handle) {
		s.t.Errorf("%+v is held as %+v", session, held)
	}
	return ok
}

func (s *viewScene) wantReads(n int, when string) {
	s.t.Helper()
	if s.rows != n {
		s.t.Errorf("%s: the row was read %d times, want %d", when, s.rows, n)
	}
}

func (s *viewScene) ended() revocation {
	return revocation{session: s.id, ended: true, remaining: time.Hour}
}
func (s *viewScene) changed() revocation { return revocation{session: s.id, remaining: time.Hour} }

// TestFreshViewDecidesByItself, and only a fresh one does. DESIGN 6.
func TestFreshViewDecidesByItself(t *testing.T) {
	s := newViewScene(t)
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "before the first poll")
	s.poll()
	_ = s.ask()
	_ = s.ask()
	s.wantReads(3, "fresh")
	s.apply(time.Now().Add(-time.Second), onServer, false, nil)
	_ = s.ask()
	s.wantReads(4, "stale")
	f := *s.fresh.Load()
	s.fresh.Store(&freshness{until: time.Now().Add(time.Minute), wall: f.wall - int64(time.Hour)})
	_ = s.ask()
	s.wantReads(5, "after the machine slept")
}

// TestReadThatARevocationOvertookIsRefused: the row was read alive, then the
// poll brought its end, then the read returned. DESIGN 6, J-24.
func TestReadThatARevocationOvertookIsRefused(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	s.during = func() { s.poll(s.ended()) }
	if err := s.ask(); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("overtaken read: %v", err)
	}
	s.during = func() {}
	if err := s.ask(); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("afterwards: %v", err)
	}
	s.wantReads(1, "an ended session")
}

// TestReadThatAChangeOvertookIsNotRemembered: the next request reads the row
// as it is now. The database's clock may have made the revocation an old one.
func TestReadThatAChangeOvertookIsNotRemembered(t *testing.T) {
	for name, overtake := range map[string]func(*viewScene){
		"this session":      func(s *viewScene) { s.poll(s.changed()) },
		"every session":     func(s *viewScene) { s.poll(revocation{everything: true, ended: true}) },
		"a new start":       (*viewScene).startOver,
		"the clock went on": func(s *viewScene) { s.poll(revocation{session: s.id, remaining: -time.Hour}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newViewScene(t)
			s.poll()
			s.during = func() { overtake(s) }
			_ = s.ask()
			s.during = func() {}
			_ = s.ask()
			s.wantReads(2, "overtaken")
			_ = s.ask()
			s.wantReads(2, "read again")
		})
	}
}

// TestRowOfAnotherServerIsNotRemembered: the pool still leads to the server
// before, of whose rows the view hears nothing any more.
func TestRowOfAnotherServerIsNotRemembered(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	s.alive(time.Hour, onServer+1)
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "of another server")
}

// TestChangedSessionIsReadAgain, and so is every session after a new start.
func TestChangedSessionIsReadAgain(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	_ = s.ask()
	s.poll(s.changed())
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "changed")
	s.startOver()
	_ = s.ask()
	s.wantReads(3, "started over")
	s.poll(s.ended())
	s.startOver()
	if err := s.ask(); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("a new start brought an ended session back: %v", err)
	}
}

// TestRevokedRowIsNotReadForEveryRequest: who goes on asking with a token of a
// revoked session costs the database nothing.
func TestRevokedRowIsNotReadForEveryRequest(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	for name, c := range map[string]struct {
		row  sessionState
		want int
	}{
		"revoked":          {sessionState{revoked: true}, 1},
		"expired, or gone": {sessionState{}, 2}, // the owner may have it live longer
	} {
		s.id, s.kept, s.rows, s.row = uuid.New(), validator.Session{}, 0, func() sessionState { return c.row }
		for range 2 {
			if err := s.ask(); !errors.Is(err, validator.ErrSessionEnded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		s.wantReads(c.want, name)
	}
}

// TestSlowReadWithoutAViewIsNotTrusted: an answer that took longer than the
// bound may be older than a revocation. It is asked for once more.
func TestSlowReadWithoutAViewIsNotTrusted(t *testing.T) {
	s := newViewScene(t)
	s.maxStaleness = time.Millisecond
	s.during = func() { time.Sleep(2 * time.Millisecond) }
	if err := s.ask(); !errors.Is(err, errStaleRead) {
		t.Errorf("slow read: %v", err)
	}
	s.wantReads(2, "slow")
	s.maxStaleness, s.rows = time.Minute, 0
	if err := s.ask(); err != nil {
		t.Errorf("quick read: %v", err)
	}
	s.wantReads(1, "quick")
}

// TestTimeThatAMachineSleptCounts: an answer that waited in the socket while the
// machine slept is old, though the monotonic clock stood still.
func TestTimeThatAMachineSleptCounts(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		sent time.Time
		want time.Duration
	}{
		"awake":              {now.Add(-time.Second), time.Second},
		"asleep":             {now.Add(-time.Hour).Round(0), time.Hour}, // no monotonic reading
		"the clock set back": {now.Add(-time.Second), time.Second},
	} {
		if got := elapsed(c.sent, now); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// TestSessionHoldsUntilTheViewHearsOfAnother: then it is looked up again, and
// not read. No view vouches for what another has read.
func TestSessionHoldsUntilTheViewHearsOfAnother(t *testing.T) {
	s, other := newViewScene(t), newViewScene(t)
	s.poll()
	other.poll()
	s.poll(revocation{session: uuid.New(), ended: true, remaining: time.Hour})
	other.poll(revocation{session: uuid.New(), ended: true, remaining: time.Hour})
	if err := s.ask(); err != nil || !s.holds(s.kept) {
		t.Fatalf("%v, or a session that was just read does not hold", err)
	}
	if err := other.ask(); err != nil { // so that it has one where this one has its own
		t.Fatal(err)
	}
	if other.holds(s.kept) {
		t.Error("a view vouches for the session of another")
	}
	s.poll() // nothing new
	if !s.holds(s.kept) {
		t.Error("a session does not hold although nothing happened")
	}
	s.poll(revocation{session: uuid.New(), ended: true, remaining: time.Hour})
	if s.holds(s.kept) {
		t.Error("a session holds although something happened that may concern it")
	}
	if err := s.ask(); err != nil || !s.holds(s.kept) {
		t.Errorf("%v, or a session that was looked up again does not hold", err)
	}
	s.wantReads(1, "a revocation of another session")
	s.poll(s.ended())
	if s.holds(s.kept) {
		t.Error("an ended session holds")
	}
}

// TestSessionsShareOnlyWhatIsTheSame: a client's id may have spaces, as scopes are
// separated by.
func TestSessionsShareOnlyWhatIsTheSame(t *testing.T) {
	s := newViewScene(t)
	s.maxStaleness = time.Hour
	s.poll()
	want := map[uuid.UUID]validator.Session{}
	for _, session := range []validator.Session{
		{UserID: "ada", ClientID: "chat", Scopes: oauth.NewScopeSet("b", "c")},
		{UserID: "bob", ClientID: "chat b", Scopes: oauth.NewScopeSet("c")},
		{UserID: "eve", ClientID: "chat b", Scopes: oauth.NewScopeSet("c"), Claims: oauth.UserClaims{"roles": {"admin"}}},
		{UserID: "bob", ClientID: "chat", Scopes: oauth.NewScopeSet("b", "c")},
	} {
		want[uuid.New()] = session
	}
	for id, session := range want {
		s.row = func() sessionState {
			read := session
			read.Until = time.Now().Add(time.Hour)
			return sessionState{session: &read, server: onServer}
		}
		if _, err := s.ReadSession(t.Context(), id.String()); err != nil {
			t.Fatal(err)
		}
	}
	for id, session := range want {
		known, err := s.ReadSession(t.Context(), id.String())
		held, ok := s.Held(known.Handle)
		for _, got := range []validator.Session{known, held} {
			if err != nil || !ok || got.UserID != session.UserID || got.ClientID != session.ClientID ||
				!got.Scopes.Equal(session.Scopes) || !reflect.DeepEqual(got.Claims, session.Claims) {
				t.Errorf("%+v is known as %+v, %v", session, got, err)
			}
		}
	}
	if s.rows != len(want) {
		t.Errorf("%d reads", s.rows)
	}
}

// TestSessionEndsByItself at its time, whatever the view has heard.
func TestSessionEndsByItself(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	s.alive(-time.Millisecond, onServer)
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "at its end")
}

func TestKnownSessionCostsNoAllocation(t *testing.T) {
	s := newViewScene(t)
	s.maxStaleness = time.Hour
	s.poll()
	id := s.id.String()
	if n := testing.AllocsPerRun(100, func() { _, _ = s.ReadSession(t.Context(), id) }); n != 0 {
		t.Errorf("%.1f allocations, want none", n)
	}
}

func TestSnapshotsAreRead(t *testing.T) {
	for text, want := range map[string]*snapshot{
		"100:100:": {xmax: 100}, "90:105:90,99,104": {xmax: 105, inProgress: []string{"90", "99", "104"}},
		"": nil, "1:2": nil, "1:x:": nil,
	} {
		got, err := parseSnapshot(text)
		if (err != nil) != (want == nil) || want != nil && (got.xmax != want.xmax || len(got.inProgress) != len(want.inProgress)) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

// TestViewStartsOverWhenItCannotGoOn: whenever revocations may have been missed.
// DESIGN 6.
func TestViewStartsOverWhenItCannotGoOn(t *testing.T) {
	polled := time.Now()
	last := position{snapshot: snapshot{xmax: 789}, server: "primary", started: 1, backend: polled.Add(-time.Hour), at: polled}
	for name, c := range map[string]struct {
		change func(*position)
		broken bool
	}{
		"the next poll":               {func(*position) {}, false},
		"another timeline":            {func(p *position) { p.server = "standby, promoted" }, true},
		"another start":               {func(p *position) { p.started++ }, true},
		"transaction ids went back":   {func(p *position) { p.xmax = 759 }, true},
		"a process after a crash":     {func(p *position) { p.backend = polled.Add(time.Millisecond) }, true},
		"another process of the pool": {func(p *position) { p.backend = polled.Add(-time.Minute) }, false},
	} {
		now := last
		now.xmax++
		c.change(&now)
		if got := now.brokenAfter(&last); (got != "") != c.broken {
			t.Errorf("%s: %q", name, got)
		}
	}
	if last.brokenAfter(nil) == "" {
		t.Error("a new connection goes on where another one was")
	}
}

func BenchmarkKnownSession(b *testing.B) {
	s := newViewScene(nil)
	s.maxStaleness = time.Hour
	s.poll()
	id := s.id.String()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ReadSession(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
}
