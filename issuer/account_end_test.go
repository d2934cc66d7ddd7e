package issuer_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/issuer"
	"github.com/caddy-scope/caddy-scope/issuer/issuertest"
)

// EVT-01: of a user who is deleted, by an event or by SQL, no way to sign in is left;
// of one who is disabled each comes back with the user, but for links that set a
// password.
func TestWhatAUserSignsInWithEndsWithThem(t *testing.T) {
	t.Parallel()
	ways := []string{"gpt_second_factors", "gpt_recovery_codes", "gpt_password_resets", "gpt_passkeys"}
	event := func(kind string) func(*testing.T, *issuertest.Scene) {
		return func(t *testing.T, scene *issuertest.Scene) {
			if r := send(scene, bySvix(t, svixSecret, "msg_1", time.Now(), clerkEvent(kind, scene.User.ID, nil))); r.Status != http.StatusNoContent {
				t.Fatalf("%d %s", r.Status, r.Body)
			}
		}
	}
	for name, c := range map[string]struct {
		end  func(*testing.T, *issuertest.Scene)
		left [4]int
	}{
		"user.deleted":    {event("user.deleted"), [4]int{}},
		"user.disabled":   {event("user.disabled"), [4]int{1, 10, 0, 1}},
		"by SQL":          {func(t *testing.T, scene *issuertest.Scene) { scene.SQL(t, `DELETE FROM gpt_users`) }, [4]int{}},
		"disabled by SQL": {func(t *testing.T, scene *issuertest.Scene) { scene.SQL(t, `UPDATE gpt_users SET disabled_at = now()`) }, [4]int{1, 10, 1, 1}},
		"by hand": {func(t *testing.T, scene *issuertest.Scene) {
			if err := scene.Store.DisableUser(context.Background(), issuertest.Email, issuer.Origin{}); err != nil {
				t.Fatal(err)
			}
		}, [4]int{1, 10, 0, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scene := newEventScene(t, func(cfg *issuer.Config) { cfg.SecondFactor = issuer.SecondFactorOptional })
			a, recovery, _ := enrol(t, scene)
			scene.SQL(t, `INSERT INTO gpt_passkeys (credential_id, user_id, name, public_key, sign_count, backup_eligible, backed_up) VALUES ('\x01', $1, 'key', '\x00', 0, false, false)`, scene.User.ID)
			link := resetLink(t, scene, issuer.Reset{})
			half, reset := askedForCode(t, scene), scene.Browser(t).Get(link)
			c.end(t, scene)
			for i, way := range ways {
				if n := scene.Count(t, `SELECT count(*) FROM `+way); n != c.left[i] {
					t.Errorf("%s: %d rows are left, want %d", way, n, c.left[i])
				}
			}
			for what, code := range map[string]string{"a code": a.code(t, 0), "a recovery code": recovery[0]} {
				if got := enterCode(half, code); got.Heading() != "Sign in" || got.Browser().Cookie("oauth_login") != "" {
					t.Errorf("%s: %d %s", what, got.Status, got.Heading())
				}
			}
			if got := setPassword(reset, newPassword); got.Status != http.StatusBadRequest {
				t.Errorf("the reset form: %d %s", got.Status, got.Heading())
			}
			if err := scene.Store.EnableUser(context.Background(), issuertest.Email, issuer.Origin{}); err != nil && c.left[0] > 0 {
				t.Fatal(err)
			}
			if got := scene.Browser(t).Get(link); got.Status != http.StatusBadRequest {
				t.Errorf("enabled again, and the link is back: %d %s", got.Status, got.Heading())
			}
		})
	}
}
