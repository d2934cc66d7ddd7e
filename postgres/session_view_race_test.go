package postgres

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/zap"

	"github.com/caddy-scope/caddy-scope/validator"
)

// viewScene is a view whose polls and reads the test makes happen, in an order
// that a database produces once in a million times.
type viewScene struct {
	*SessionView
	t      *testing.T
	id     uuid.UUID
	rows   int           // times the row was read
	during func()        // runs while the row is being read
	left   time.Duration // of the row's session
	kept   *validator.Session
}

func newViewScene(t *testing.T) *viewScene {
	s := &viewScene{t: t, id: uuid.New(), during: func() {}, left: time.Hour}
	s.SessionView = NewSessionView(&DB{logger: zap.NewNop()}, &SessionReader{}, time.Second)
	s.read = func(context.Context, uuid.UUID) (*validator.Session, error) {
		s.rows++
		session := &validator.Session{UserID: "ada", ClientID: "app", Until: time.Now().Add(s.left)}
		s.during()
		return session, nil
	}
	return s
}

func (s *viewScene) poll(revocations ...revocation) {
	s.apply(time.Now(), s.fresh.Load() == nil, revocations)
}

// ask asks as a gate does: first whether what it was told before still holds.
func (s *viewScene) ask() (err error) {
	if s.kept != nil && s.Holds(s.kept) {
		return nil
	}
	s.kept, err = s.ReadSession(s.t.Context(), s.id.String())
	return err
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
	s.wantReads(2, "before the view is loaded")
	s.poll()
	_ = s.ask()
	_ = s.ask()
	s.wantReads(3, "loaded")
	s.apply(time.Now().Add(-time.Second), false, nil)
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
// as it is now.
func TestReadThatAChangeOvertookIsNotRemembered(t *testing.T) {
	for name, revocation := range map[string]func(*viewScene) revocation{
		"this session":  (*viewScene).changed,
		"every session": func(*viewScene) revocation { return revocation{everything: true, ended: true} },
	} {
		t.Run(name, func(t *testing.T) {
			s := newViewScene(t)
			s.poll()
			s.during = func() { s.poll(revocation(s)) }
			_ = s.ask()
			s.during = func() {}
			_ = s.ask()
			s.wantReads(2, "overtaken")
			_ = s.ask()
			s.wantReads(2, "read again")
		})
	}
}

// TestChangedSessionIsReadAgain, and so is every session after a load in full.
func TestChangedSessionIsReadAgain(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	_ = s.ask()
	s.poll(s.changed())
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "changed")
	s.apply(time.Now(), true, nil)
	_ = s.ask()
	s.wantReads(3, "loaded in full")
	s.poll(s.ended())
	s.apply(time.Now(), true, nil)
	if err := s.ask(); !errors.Is(err, validator.ErrSessionEnded) {
		t.Errorf("a load in full brought an ended session back: %v", err)
	}
}

// TestSlowReadWithoutAViewIsNotTrusted: an answer that took longer than the
// bound may be older than a revocation.
func TestSlowReadWithoutAViewIsNotTrusted(t *testing.T) {
	s := newViewScene(t)
	s.maxStaleness = time.Millisecond
	s.during = func() { time.Sleep(2 * time.Millisecond) }
	if err := s.ask(); !errors.Is(err, errStaleRead) {
		t.Errorf("slow read: %v", err)
	}
}

// TestSessionHoldsUntilTheViewHearsOfAnother: then it is looked up again, and
// not read. No view vouches for what another has read.
func TestSessionHoldsUntilTheViewHearsOfAnother(t *testing.T) {
	s, other := newViewScene(t), newViewScene(t)
	s.poll()
	other.poll()
	if err := s.ask(); err != nil || !s.Holds(s.kept) {
		t.Fatalf("%v, or a session that was just read does not hold", err)
	}
	if other.Holds(s.kept) {
		t.Error("a view vouches for the session of another")
	}
	s.poll() // nothing new
	if !s.Holds(s.kept) {
		t.Error("a session does not hold although nothing happened")
	}
	s.poll(revocation{session: uuid.New(), ended: true, remaining: time.Hour})
	if s.Holds(s.kept) {
		t.Error("a session holds although something happened that may concern it")
	}
	if err := s.ask(); err != nil || !s.Holds(s.kept) {
		t.Errorf("%v, or a session that was looked up again does not hold", err)
	}
	s.wantReads(1, "a revocation of another session")
	s.poll(s.ended())
	if s.Holds(s.kept) {
		t.Error("an ended session holds")
	}
}

// TestSessionEndsByItself at its time, whatever the view has heard.
func TestSessionEndsByItself(t *testing.T) {
	s := newViewScene(t)
	s.poll()
	s.left = -time.Millisecond
	_ = s.ask()
	_ = s.ask()
	s.wantReads(2, "at its end")
}

// TestMarksAreKeptAsLongAsTokensLive, and no longer.
func TestMarksAreKeptAsLongAsTokensLive(t *testing.T) {
	s := newViewScene(t)
	s.poll(s.ended(), revocation{session: uuid.New(), ended: true, remaining: time.Second})
	s.apply(time.Now().Add(2*pruneEvery), false, nil)
	if n := s.State().Revocations; n != 1 {
		t.Errorf("%d marks, want the one whose tokens live", n)
	}
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
