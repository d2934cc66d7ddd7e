package issuer

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestHashPasswordMakesArgon2idOfTheRecommendedCost(t *testing.T) {
	t.Parallel()
	first, second := sceneHash(), ""
	second, err := HashPassword(t.Context(), scenePassword)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(first, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Errorf("hash %q has another cost", first)
	}
	if first == second {
		t.Error("two hashes of one password are equal: the salt is not random")
	}
	v := newPasswordVerifier()
	for password, want := range map[string]bool{scenePassword: true, scenePassword + " ": false, "": false} {
		if got, err := v.Verify(t.Context(), first, password); got != want || err != nil {
			t.Errorf("Verify(%q) = %v, %v", password, got, err)
		}
	}
}

func TestHashPasswordRefusesWhatIsNoPassword(t *testing.T) {
	t.Parallel()
	for name, password := range map[string]string{
		"short":        "1234567",
		"long":         strings.Repeat("x", MaxPasswordBytes+1),
		"NUL":          "12345678\x00",
		"invalid text": "12345678\xff",
	} {
		if hash, err := HashPassword(t.Context(), password); err == nil {
			t.Errorf("%s: hashed to %q", name, hash)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("%s: the error tells the password", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := HashPassword(ctx, scenePassword); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// An é typed as one character and as two is the same password.
func TestPasswordsAreComparedInNormalForm(t *testing.T) {
	t.Parallel()
	hash, err := HashPassword(t.Context(), "caf\u00e9-secret")
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := newPasswordVerifier().Verify(t.Context(), hash, "cafe\u0301-secret"); !ok || err != nil {
		t.Errorf("Verify = %v, %v", ok, err)
	}
}

func TestVerifyRefusesHashesOutOfBounds(t *testing.T) {
	t.Parallel()
	const salt, sum = "AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	v := newPasswordVerifier()
	for name, hash := range map[string]string{
		"memory":         "$argon2id$v=19$m=4194304,t=2,p=1$" + salt + "$" + sum,
		"memory too low": "$argon2id$v=19$m=7,t=2,p=1$" + salt + "$" + sum,
		"passes":         "$argon2id$v=19$m=19456,t=4000000,p=1$" + salt + "$" + sum,
		"no passes":      "$argon2id$v=19$m=19456,t=0,p=1$" + salt + "$" + sum,
		"no lanes":       "$argon2id$v=19$m=19456,t=2,p=0$" + salt + "$" + sum,
		"lanes":          "$argon2id$v=19$m=19456,t=2,p=200$" + salt + "$" + sum,
		"overflow":       "$argon2id$v=19$m=4294967297,t=2,p=257$" + salt + "$" + sum,
		"short sum":      "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$AAAA",
		"empty sum":      "$argon2id$v=19$m=19456,t=2,p=1$" + salt + "$",
		"short salt":     "$argon2id$v=19$m=19456,t=2,p=1$AAAA$" + sum,
		"argon2i":        "$argon2i$v=19$m=19456,t=2,p=1$" + salt + "$" + sum,
		"old version":    "$argon2id$v=16$m=19456,t=2,p=1$" + salt + "$" + sum,
		"more":           "$argon2id$v=19$m=19456,t=2,p=1,x=1$" + salt + "$" + sum,
		"sign":           "$argon2id$v=19$m=+19456,t=2,p=1$" + salt + "$" + sum,
		"bcrypt":         "$2y$10$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
		"plain text":     scenePassword,
	} {
		before := v.computed.Load()
		ok, err := v.Verify(t.Context(), hash, scenePassword)
		if ok || !errors.Is(err, errPasswordHash) {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		if v.computed.Load() != before+1 {
			t.Errorf("%s: took other work than a wrong password", name)
		}
	}
}

func TestVerifyKeepsOnlyAFewComputationsAndAShortQueue(t *testing.T) {
	t.Parallel()
	v := newPasswordVerifier()
	// Every slot is taken, so that whoever comes waits.
	for range cap(v.slots) {
		v.slots <- struct{}{}
		v.tickets <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	errs := make(chan error, 100)
	for range 100 {
		waiting.Go(func() {
			_, err := v.Verify(ctx, "", "x")
			errs <- err
			if errors.Is(err, errPasswordBusy) && len(errs) == 100-passwordQueue {
				cancel() // those in the queue went away
			}
		})
	}
	waiting.Wait()
	cancel()
	busy, gone := 0, 0
	for range 100 {
		switch err := <-errs; {
		case errors.Is(err, errPasswordBusy):
			busy++
		case errors.Is(err, context.Canceled):
			gone++
		default:
			t.Errorf("unexpected: %v", err)
		}
	}
	if busy+gone != 100 || busy < 100-passwordQueue {
		t.Errorf("%d told to come again and %d left the queue, want %d and %d", busy, gone, 100-passwordQueue, passwordQueue)
	}
	if v.computed.Load() != 0 {
		t.Error("computed without a slot")
	}
	if n := len(v.tickets); n != cap(v.slots) {
		t.Errorf("%d places of the queue stay taken", n-cap(v.slots))
	}
}

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		" Ada@Example.COM ":             "ada@example.com",
		"rene\u0301@example.com":        "ren\u00e9@example.com",
		"":                              "",
		"ada":                           "",
		"@example.com":                  "",
		"ada@":                          "",
		"ada@b@c":                       "",
		"a da@example.com":              "",
		"ada@example.com\nBcc: x@y":     "",
		"ada\u202e@example.com":         "",
		"ada\x00@example.com":           "",
		"\xff@example.com":              "",
		strings.Repeat("a", 255) + "@b": "",
	} {
		got, err := NormalizeEmail(in)
		if got = strings.TrimSpace(got); (err != nil) != (want == "") || (err == nil && got != want) {
			t.Errorf("NormalizeEmail(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}
