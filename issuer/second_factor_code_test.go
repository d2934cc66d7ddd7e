package issuer_test

import (
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// LOG-21: a code counts once, and those before it not any more; on whichever node,
// and of many at once one.
func TestCodeCountsOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	wantRefusedCode(t, "the code that set it up", enterCode(askedForCode(t, scene), a.code(t, -30*time.Second)))
	code := a.code(t, 0)
	enterCode(askedForCode(t, scene), code).Follow().Allow().Code()
	wantRefusedCode(t, "the same code again", enterCode(askedForCode(t, scene), code))

	scene.Clock.Advance(time.Minute)
	code = a.code(t, 0)
	var wg sync.WaitGroup
	entered := make(chan bool, 4)
	for range cap(entered) {
		p := askedForCode(t, scene)
		wg.Go(func() { entered <- enterCode(p, code).Status == http.StatusSeeOther })
	}
	wg.Wait()
	close(entered)
	n := 0
	for in := range entered {
		if in {
			n++
		}
	}
	if n != 1 {
		t.Errorf("one code signed in %d times", n)
	}
	for what, later := range map[string]time.Duration{"long ago": -90 * time.Second, "not yet": 90 * time.Second} {
		wantRefusedCode(t, what, enterCode(askedForCode(t, scene), a.code(t, later)))
	}
}

// LOG-22: a recovery code stands in once, in any spelling.
func TestRecoveryCodeCountsOnce(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	_, recovery, _ := enrol(t, scene)
	p := enterCode(askedForCode(t, scene), " "+strings.ToLower(strings.ReplaceAll(recovery[3], "-", ""))).Follow()
	p.Allow().Code()
	wantRefusedCode(t, "the same again", enterCode(askedForCode(t, scene), recovery[3]))
	page := p.Browser().Get("/oauth/account")
	if !strings.Contains(page.Text(), "Recovery codes left 9") {
		t.Error(page.Text())
	}
	renewed := codesOnPage.FindAllString(page.Press("Make new recovery codes").Text(), -1)
	wantRefusedCode(t, "one of before", enterCode(askedForCode(t, scene), recovery[4]))
	enterCode(askedForCode(t, scene), renewed[0]).Follow().Allow().Code()
}

// LOG-23, A-32: the sixth wrong code of an address waits, also in parallel and after
// a new sign-in; and the eleventh of a user, from wherever.
func TestCodesCannotBeGuessed(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, secondFactor(issuer.SecondFactorOptional))
	a, _, _ := enrol(t, scene)
	var wg sync.WaitGroup
	refused := make(chan bool, 8)
	for range cap(refused) {
		p := askedForCode(t, scene)
		wg.Go(func() { refused <- enterCode(p, a.wrong(t)).Status == http.StatusTooManyRequests })
	}
	wg.Wait()
	close(refused)
	n := 0
	for r := range refused {
		if r {
			n++
		}
	}
	if n != 3 {
		t.Errorf("%d of 8 wrong codes were told to wait, want 3", n)
	}
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests || got.Header.Get("Retry-After") == "" {
		t.Errorf("the right code, at once: %d", got.Status)
	}
	scene.Clock.Advance(5*time.Minute + time.Second)
	scene.SQL(t, `UPDATE gpt_second_factors SET attempts = 10`) // as if other nodes had counted
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests || !strings.Contains(got.Text(), "none is looked at for 15 minutes") {
		t.Errorf("the eleventh of the user: %d %s", got.Status, got.Text())
	}
	scene.SQL(t, `UPDATE gpt_second_factors SET attempts_since = now() - interval '16 minutes'`)
	enterCode(askedForCode(t, scene), a.code(t, 0)).Follow().Allow().Code()
	if n := scene.Count(t, `SELECT attempts FROM gpt_second_factors`); n != 0 {
		t.Errorf("%d attempts are left after a right code", n)
	}
}

// LOG-28: thirty codes a day, and no more, whoever tries them; the page says what to do,
// and none of the ways around the codes is closed by a stranger who tries: a recovery
// code, a passkey, a link that removes the factor.
func TestPatienceDoesNotGuessACode(t *testing.T) {
	t.Parallel()
	scene := issuertest.New(t, issuertest.Passkeys(), secondFactor(issuer.SecondFactorOptional))
	device := scene.Authenticator(t)
	add(t, account(t, scene), device, "Phone")
	a, recovery, _ := enrol(t, scene)
	for range 6 {
		p := askedForCode(t, scene)
		for range 5 {
			if got := enterCode(p, a.wrong(t)); got.Status != http.StatusOK {
				t.Fatalf("%d %s", got.Status, got.Text())
			}
		}
		scene.Clock.Advance(5*time.Minute + time.Second) // five are those of an address
		scene.SQL(t, `UPDATE gpt_second_factors SET attempts_since = now() - interval '16 minutes'`)
	}
	got := enterCode(askedForCode(t, scene), a.code(t, 0))
	wait, err := strconv.Atoi(got.Header.Get("Retry-After"))
	if got.Status != http.StatusTooManyRequests || err != nil || wait < 23*60*60 || wait > 24*60*60 || !strings.Contains(got.Text(), "none is looked at for 24 hours. One of your recovery codes signs you in all the same") {
		t.Errorf("the right code, as the thirty-first: %d, again in %q s: %s", got.Status, got.Header.Get("Retry-After"), got.Text())
	}
	enterCode(askedForCode(t, scene), recovery[0]).Follow().Allow().Code()
	if got := enterCode(askedForCode(t, scene), a.code(t, 0)); got.Status != http.StatusTooManyRequests {
		t.Errorf("a recovery code gave a day's attempts back: %d", got.Status)
	}
	use(t, scene.Browser(t).Authorize(issuertest.Confidential), device).Follow().Allow().Code()
	scene.SQL(t, `UPDATE gpt_second_factors SET day_since = now() - interval '25 hours'`)
	enterCode(askedForCode(t, scene), a.code(t, 0)).Follow().Allow().Code()
	if n := scene.Count(t, `SELECT day_attempts FROM gpt_second_factors`); n != 0 {
		t.Errorf("a right code counts as a wrong one: %d", n)
	}
}
