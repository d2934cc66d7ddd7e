package e2e

import (
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// attacks are what may happen on the way in, and to which ways it can. A case that
// is not there has nothing to it: a password has no provider to say no or be down,
// and whoever sends it again, from wherever, knows it; only a provider and a passkey
// sign what they are asked (nonce, challenge).
var attacks = []struct {
	name string
	at   string // names of ways
	run  func(*testing.T, *site, way)
}{
	{"WAY-01: the user denies", "oidc jwt forward passkey", userDenies},
	{"WAY-03: wrong nonce", "oidc passkey", wrongNonce},
	{"WAY-04: replayed answer", "oidc jwt forward totp passkey", replayedAnswer},
	{"WAY-05: answer from another browser", "oidc jwt forward password totp passkey", answerFromAnotherBrowser},
	{"WAY-07: mix-up", "oidc jwt forward totp", mixUp},
	{"WAY-08: session fixation", "oidc jwt forward password totp passkey", sessionFixation},
	{"WAY-09: two tabs at once", "oidc jwt forward password totp passkey", twoTabsAtOnce},
	{"WAY-10: back button", "oidc jwt forward password totp passkey", backButton},
	{"WAY-11: double click on Allow", "oidc jwt forward password totp passkey", doubleClickOnAllow},
	{"WAY-12: sign-out while consenting", "oidc jwt forward password totp passkey", signOutWhileConsenting},
	{"WAY-02: the place is down", "jwt forward oidc", placeIsDown},
}

// WAY-01, WAY-02, WAY-03, WAY-04, WAY-05, WAY-07, WAY-08, WAY-09, WAY-10, WAY-11, WAY-12, PAG-15, CLI-21:
// every way to sign in against everything that may happen on it, in Chromium, with
// node-oidc-provider and an app of an owner in processes of their own. SECURITY-CASES
// RFC 9700 section 4.
func TestNothingOnTheWayInSignsTheWrongOneIn(t *testing.T) {
	s := newSite(t, newChromiumFor(t, 10*time.Minute))
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			for _, name := range strings.Fields(attack.at) {
				at := slices.IndexFunc(ways, func(w way) bool { return w.name == name })
				if at < 0 {
					t.Fatalf("there is no way %q", name)
				}
				t.Run(name, func(t *testing.T) {
					s.clear()
					attack.run(t, s, ways[at])
				})
			}
		})
	}
}

// WAY-06: an answer that comes too late signs nobody in, whichever way it came.
func TestWhoTakesTooLongIsNotSignedIn(t *testing.T) {
	s, advance := newLateSite(t, newChromiumFor(t, 10*time.Minute))
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			lasts, says := 10*time.Minute, "This took too long For your safety a request for access ends after 10 minutes."
			if w.name == "totp" { // a password that was right holds for less
				lasts, says = 5*time.Minute, "This took too long, or the page was used before. Try again."
				w.give = func(v *visitor) { v.givesCode(v.recovery[0]) } // which the clock does not end
			}
			s.clear()
			v := s.visitor(t)
			answer := v.keeps(w)
			advance(lasts + time.Second)
			v.brings(answer)
			v.reads(says)
			v.wantLogins(0)
		})
	}
}

func userDenies(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	v.arrives("state")
	switch w.name {
	case "oidc":
		w.begin(v)
		v.do(chromedp.Click(`//a[contains(., "Cancel")]`))
		v.reads("You did not sign in with First ID. Nothing was allowed.")
	case "passkey": // the device does not know the finger
		v.holdsDevice(false)
		w.give(v)
		v.reads("No passkey was used. Try again, or sign in with your password.")
	default:
		w.begin(v)
		v.do(chromedp.Click(button("Cancel")))
		v.reads("you came back without being signed in there")
	}
	v.wantLogins(0)
}

// The answer is to another question than this browser's: of a provider to another
// nonce, of a passkey to another challenge. All else about it is right.
func wrongNonce(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	if w.name == "oidc" {
		v.tap.changing(func(r *sent) {
			if strings.HasPrefix(r.URL.String(), s.first.URL+"/auth?") {
				*r = *r.with(func(q url.Values) { q.Set("nonce", "another") })
			}
		})
		v.signsIn(w)
		v.reads("First ID did not sign you in. Try again, or sign in another way.")
		v.wantLogins(0)
		return
	}
	v.arrives("state")
	ceremony := v.value(`//input[@name="ceremony"]`)
	v.tap.changing(func(r *sent) {
		if r.is(w.method, w.answer) {
			r.Form.Set("ceremony", ceremony)
		}
	})
	v.signsIn(w)
	v.reads("This passkey could not be checked.")
	v.wantLogins(0)
}

func (v *visitor) value(selector string) string {
	v.t.Helper()
	value, err := chromedp.Run(v.tab, chromedp.Value(selector))
	if err != nil {
		v.t.Fatal(err)
	}
	return value
}

// What has signed somebody in signs nobody in again once they are out, in the very
// browser.
func replayedAnswer(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	answer := v.keeps(w)
	v.brings(answer)
	v.do(chromedp.WaitVisible(button("Allow")))
	v.wantLogins(1)
	s.clear()
	v.brings(answer)
	switch w.name {
	case "totp":
		v.reads("This code is not right, or was used before.")
	default:
		v.do(chromedp.WaitVisible(button("Sign in with a passkey"))) // the sign-in page
	}
	v.wantLogins(0)
}

// An attacker keeps the answer that would sign them in, and has somebody else's
// browser bring it: one that has never been here, and one that is on the way in
// itself.
func answerFromAnotherBrowser(t *testing.T, s *site, w way) {
	answer := s.visitor(t).keeps(w)
	victim := s.visitor(t)
	if strings.HasPrefix(w.answer, "/oauth/login/") && w.name != "passkey" {
		// Signed in at the app: what an app says of the browser is no reason to go on.
		victim.signsInAtApp()
	}
	victim.brings(answer)
	victim.reads("Your browser did not keep our cookie")
	victim.wantLogins(0)
	victim.arrives("state")
	victim.do(chromedp.WaitVisible(field("Email")))
	victim.brings(answer)
	victim.reads("This was started in another browser")
	victim.wantLogins(0)
	if cookie := victim.login(); cookie != "" {
		t.Error("the victim's browser has a login")
	}
}

// signsInAtApp signs in at the owner's app, and at nothing else.
func (v *visitor) signsInAtApp() {
	v.t.Helper()
	v.do(chromedp.Navigate("http://localhost:"+v.appPort+"/sign-in?next="+url.QueryEscape("http://localhost:"+v.appPort+"/jwks")), chromedp.WaitVisible(field("Username")))
	atApp(v)
	v.reads("keys")
}

// The answer of one place is brought as that of another.
func mixUp(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	switch w.name {
	case "oidc":
		// The user wants the second provider, which is the attacker's and sends the
		// browser on to the first. RFC 9700 section 4.4.1.
		v.tap.changing(func(r *sent) {
			if strings.HasPrefix(r.URL.String(), s.second.URL+"/auth?") {
				onward := r.with(func(q url.Values) { q.Set("redirect_uri", s.Base+w.answer) }).URL
				onward.Host = strings.TrimPrefix(s.first.URL, "http://")
				r.Onward = onward.String()
			}
		})
		w.begin = throughProvider("Second ID")
		answer := v.keeps(w)
		v.brings(answer)
		v.reads("This request cannot be read")
		v.wantLogins(0)
		// As it would go to the attacker's token endpoint: it does not get that far.
		v.brings(answer.at("/oauth/login/second"))
		v.reads("Second ID did not sign you in.")
		v.brings(answer.at("/oauth/login/second").with(func(q url.Values) { q.Del("iss") }))
		v.reads("Second ID did not sign you in.")
		eventually(t, "the log has both", func() bool { return strings.Count(s.log(), "sign-in refused by second") == 2 })
		if n := strings.Count(s.log(), "the answer names another issuer, or none"); n != 2 {
			t.Errorf("a code of one provider went to the other: %s", s.log())
		}
	case "totp": // the password was right for what another tab asks
		v.arrives("another")
		v.types(withCode)
		v.do(chromedp.Click(button("Sign in")), chromedp.WaitVisible(field(codeField)))
		pending := v.value(`//input[@name="pending"]`)
		v.tap.changing(func(r *sent) {
			if r.is(w.method, w.answer) {
				r.Form.Set("pending", pending)
			}
		})
		v.signsIn(w)
		v.reads("This took too long, or the page was used before. Try again.")
	default:
		other := map[string]string{"jwt": "/oauth/login/forward", "forward": "/oauth/login/jwt"}
		v.brings(v.keeps(w).at(other[w.name]))
		v.reads("This request cannot be read")
	}
	v.wantLogins(0)
}

// A cookie that was planted before does not become the login, and who planted it is
// not signed in with the user.
func sessionFixation(t *testing.T, s *site, w way) {
	planted := strings.Repeat("a", 43)
	v, attacker := s.visitor(t), s.visitor(t)
	v.plants(planted)
	v.signsIn(w)
	v.do(chromedp.WaitVisible(button("Allow")))
	if cookie := v.login(); cookie == "" || cookie == planted {
		t.Errorf("the login is known by %q", cookie)
	}
	attacker.plants(planted)
	attacker.arrives("state")
	attacker.do(chromedp.WaitVisible(field("Email")))
	v.wantLogins(1)
}

// Two tabs are asked at once who is there, and are both told: each goes its way. The
// second login takes the place of the first, whose page allows nothing any more.
func twoTabsAtOnce(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	v.arrives("one")
	w.begin(v)
	other := v.another()
	other.arrives("two")
	w.begin(other)
	w.give(other)
	other.do(chromedp.WaitVisible(button("Allow")))
	w.give(v)
	first := v.allows()
	other.do(chromedp.Click(button("Allow")))
	other.reads("This did not come from our page")
	v.wantCodes(1)
	other.arrives("two")
	second := other.allows()
	if first.Get("state") != "one" || second.Get("state") != "two" || first.Get("code") == "" || first.Get("code") == second.Get("code") {
		t.Errorf("answers %v and %v", first, second)
	}
	v.wantLogins(1)
	v.wantCodes(2)
}

// The back button leads to the answer of the sign-in once more, and after Allow to
// the consent page: neither makes a second login, nor a second code.
func backButton(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	answer := v.keeps(w)
	v.brings(answer)
	v.do(chromedp.WaitVisible(button("Allow")))
	if answer.Form == nil { // a form is not sent again without asking
		v.brings(answer)
		v.do(chromedp.WaitVisible(button("Allow")))
		v.wantLogins(1)
	}
	code := v.allows().Get("code")
	v.reads("You can close this window.")
	v.do(chromedp.NavigateBack())
	if again := v.allows().Get("code"); again != code {
		t.Errorf("codes %q and %q", code, again)
	}
	v.wantCodes(1)
}

func doubleClickOnAllow(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	v.signsIn(w)
	v.do(chromedp.WaitVisible(button("Allow")), chromedp.DoubleClick(button("Allow")))
	code := v.back.await(t).Get("code")
	v.tap.seen(t, "POST", "/oauth/consent")
	v.wantCodes(1)
	for len(v.back.calls) > 0 {
		if again := v.back.await(t).Get("code"); again != code {
			t.Errorf("codes %q and %q", code, again)
		}
	}
}

// The form of a consent page allows nothing after its user has signed out elsewhere.
func signOutWhileConsenting(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	v.signsIn(w)
	v.do(chromedp.WaitVisible(button("Allow")))
	other := v.another()
	other.do(chromedp.Navigate(s.Base+"/oauth/apps"), chromedp.WaitVisible(button("Not you? Sign out")), chromedp.Click(button("Not you? Sign out")))
	other.reads("You are signed out")
	v.do(chromedp.Click(button("Allow")), chromedp.WaitVisible(field("Email")))
	v.wantCodes(0)
	if len(v.back.calls) != 0 {
		t.Errorf("the client was answered: %v", <-v.back.calls)
	}
}

// The place where the user signs in goes away when the answer is on its way.
func placeIsDown(t *testing.T, s *site, w way) {
	v := s.visitor(t)
	if w.name == "oidc" {
		answer := v.keeps(w)
		s.first.stop()
		v.brings(answer)
		v.reads("First ID does not answer")
		v.wantLogins(0)
		return
	}
	through := map[string]string{"jwt": "Job Board by key", "forward": "Job Board Pro"}[w.name]
	v.signsInAtApp()
	s.stopApp()
	v.arrives("state")
	v.do(chromedp.WaitVisible(button("Continue with "+through)), chromedp.Click(button("Continue with "+through)))
	v.reads(through + " does not answer")
	v.wantLogins(0)
	s.startApp()
}
