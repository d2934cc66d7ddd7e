package issuer

import (
	"context"
	"time"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// LoginStore holds logins: a user's signed-in browser.
type LoginStore interface {
	// CreateLogin stores a login of a user of `login password`, made by the method of
	// that name, that lives for ttl, and returns it.
	CreateLogin(ctx context.Context, digest Digest, userID, method string, ttl time.Duration, origin Origin) (Login, error)
	// CreateExternalLogin stores a login of a user whom another authority names,
	// made by the login method of that name; hint, sealed, may be nil. Who is seen for the first time
	// becomes a user under ExternalUser.UserID; afterwards authority and subject
	// decide, and name, claims and profile follow what is said now. ErrNotFound: the user
	// is disabled, or their account or session there has ended meanwhile.
	// ErrExists: the id is another user's, or a client's.
	CreateExternalLogin(ctx context.Context, digest Digest, method string, user ExternalUser, hint []byte, ttl time.Duration, origin Origin) (Login, error)
	// FindLogin returns the live login whose cookie has this digest.
	// ErrNotFound: unknown, expired, ended, or its user is disabled.
	FindLogin(ctx context.Context, digest Digest) (Login, error)
	// LogoutHint returns the sealed hint that the login was made with. ErrNotFound:
	// no such login; nil: it has none.
	LogoutHint(ctx context.Context, digest Digest) (sealed []byte, err error)
	// EndLogin removes the login (sign-out). Codes made under it and not yet
	// redeemed die with it. Unknown digests are no error.
	EndLogin(ctx context.Context, digest Digest, origin Origin) error
	// EndProviderLogins removes the logins of a user who has signed out at the
	// provider, as EndLogin does, also those whose sign-in is under way, and if it
	// is asked to, all sessions of the user. It returns how many of each, which may
	// be none. ErrReplayed, and nothing changed: the token was used before, on
	// whichever node.
	EndProviderLogins(ctx context.Context, logout ProviderLogout, origin Origin) (logins, sessions int, err error)
}

// PasskeyStore holds the passkeys of the users of `login password`.
type PasskeyStore interface {
	// Passkeys returns those of the user, oldest first.
	Passkeys(ctx context.Context, userID string) ([]Passkey, error)
	// FindPasskey returns the passkey with this credential id. ErrNotFound: there is
	// none, or its user is disabled.
	FindPasskey(ctx context.Context, credentialID []byte) (Passkey, error)
	// AddPasskey stores a passkey of a user who has fewer than limit, and renews the
	// login at which they did that. ErrTooManyPasskeys; ErrExists: the credential is
	// somebody's already; ErrNotFound: the user is gone, disabled, or signs in
	// elsewhere.
	AddPasskey(ctx context.Context, passkey Passkey, limit int, login RenewedLogin, origin Origin) error
	// RenamePasskey gives a passkey of the user another name. ErrNotFound.
	RenamePasskey(ctx context.Context, userID, passkeyID, name string) error
	// RemovePasskey removes a passkey of the user, and ends the logins that were
	// made with it but the one whose cookie has the digest keep. ErrNotFound.
	RemovePasskey(ctx context.Context, userID, passkeyID string, keep Digest, origin Origin) error
	// CreatePasskeyLogin moves the passkey's counter to passkey.SignCount and stores
	// a login that lives for ttl. ErrReplayed, with an event and nothing changed: the
	// counter was there before, so that two devices hold the key. WebAuthn section
	// 7.2 step 22. ErrNotFound: the passkey was removed or its user disabled
	// meanwhile.
	CreatePasskeyLogin(ctx context.Context, digest Digest, passkey Passkey, ttl time.Duration, origin Origin) (Login, error)
}

// AccountStore follows accounts that other authorities keep.
type AccountStore interface {
	// EndAccount disables a user: all logins and sessions end at once, and nobody
	// signs in until the user is enabled again. It returns their id. ErrNotFound:
	// nobody here; whoever it is cannot become a user within the next hour.
	// ErrReplayed, and nothing changed: the event was used before, on whichever
	// node.
	EndAccount(ctx context.Context, end AccountEnd, origin Origin) (userID string, err error)
}

// FactorStore holds second factors of the users of `login password`.
type FactorStore interface {
	// FindSecondFactor returns that of the user. ErrNotFound: they have none.
	FindSecondFactor(ctx context.Context, userID string) (SecondFactor, error)
	// TrySecondFactor counts an attempt, before it is known what comes of it, and
	// returns the second factor. *TooManyAttempts: there were as many as each of the
	// bounds allows, on all nodes together. ErrNotFound.
	TrySecondFactor(ctx context.Context, userID string, lately, daily AttemptBound) (SecondFactor, error)
	// UseSecondFactor notes that a code of this time step counted, forgets the
	// attempts of lately, and takes this one from those of the day: who guesses gains
	// nothing from the user's own codes. resealed replaces the sealed secret unless it
	// is nil. ErrReplayed: a code of this step, or a later one, counted before, on
	// whichever node. RFC 6238 section 5.2.
	UseSecondFactor(ctx context.Context, userID string, step int64, resealed []byte) error
	// UseRecoveryCode forgets the code and the attempts of lately. ErrNotFound: the
	// user has no such code.
	UseRecoveryCode(ctx context.Context, userID string, code Digest, origin Origin) error
	// SetSecondFactor gives the user a second factor and recovery codes. Logins by
	// password alone end, but the one that is renewed, which counts as one by both
	// from now on. ErrExists: the user has one, or is gone.
	SetSecondFactor(ctx context.Context, userID string, factor SecondFactor, codes []Digest, login RenewedLogin, origin Origin) error
	// SetRecoveryCodes replaces the user's recovery codes. ErrNotFound: the user has
	// no second factor.
	SetRecoveryCodes(ctx context.Context, userID string, codes []Digest, origin Origin) error
	// RemoveSecondFactor removes it with its recovery codes. ErrNotFound.
	RemoveSecondFactor(ctx context.Context, userID string, origin Origin) error
}

// AttemptBound is how many attempts there may be in how long.
type AttemptBound struct {
	Limit  int
	Window time.Duration
}

// TooManyAttempts: no more of them are looked at for so long.
type TooManyAttempts struct{ For time.Duration }

func (e *TooManyAttempts) Error() string {
	return "too many attempts; again in " + e.For.Round(time.Second).String()
}

// RenewedLogin is a login whose cookie changes: by digests. The zero value renews
// none.
type RenewedLogin struct{ Before, After Digest }

// ResetStore holds links by which a user of `login password` sets a new password.
type ResetStore interface {
	// CreateReset stores the digest of a link that works for ttl. ErrNotFound: there
	// is no such user, or they are disabled.
	CreateReset(ctx context.Context, digest Digest, reset Reset, ttl time.Duration, origin Origin) error
	// FindReset returns what the link would do, and changes nothing. ErrNotFound:
	// unknown, used, expired, or its user is disabled.
	FindReset(ctx context.Context, digest Digest) (Reset, error)
	// UseReset sets the password, ends the user's logins, does what else the link
	// says, and forgets the user's links. ErrNotFound, and nothing changed: as above.
	UseReset(ctx context.Context, digest Digest, passwordHash string, origin Origin) error
}

// UserStore manages the users of `login password`.
type UserStore interface {
	// FindUserByEmail compares without regard to case. Disabled users are
	// returned with Disabled set. ErrNotFound: no such user.
	FindUserByEmail(ctx context.Context, email string) (User, error)
	// CreateUser stores a new user and returns its id. ErrExists: email taken.
	CreateUser(ctx context.Context, email, passwordHash string, origin Origin) (User, error)
	// SetPassword replaces the hash and ends the user's logins. ErrNotFound.
	SetPassword(ctx context.Context, email, passwordHash string, origin Origin) error
	// DisableUser disables the user, ends its logins, revokes its sessions and takes
	// back its reset links. Who has no address is named by user id. ErrNotFound.
	DisableUser(ctx context.Context, name string, origin Origin) error
	// EnableUser undoes DisableUser, but no session and no reset link comes back.
	// ErrNotFound.
	EnableUser(ctx context.Context, name string, origin Origin) error
}

// Login is one row of gpt_logins.
type Login struct {
	ID        string // uuid
	UserID    string
	Name      string // what the pages call the user: the email address
	Method    string // the login method that made it, such as "password"
	AuthTime  time.Time
	ExpiresAt time.Time
	// Authority and Subject are who names the user elsewhere, and how; empty: they
	// sign in with a password.
	Authority, Subject string
	// Claims of the user as they stand now; nil: none.
	Claims oauth.UserClaims
	// HalfDone: made by the password alone, of a user who has a second factor.
	HalfDone bool
}

// SecondFactor is one row of gpt_second_factors.
type SecondFactor struct {
	Sealed        []byte // the secret, sealed under the root secret
	Step          int64  // time step of the last code that counted
	RecoveryCodes int    // that are left
	CreatedAt     time.Time
}

// Reset is what a link to set a new password does besides.
type Reset struct {
	Email         string // of the user
	EndSessions   bool   // revokes the user's sessions
	RemoveFactors bool   // removes passkeys and second factor
}

// Passkey is one row of gpt_passkeys: a credential of WebAuthn section 4.
type Passkey struct {
	ID           string // uuid
	CredentialID []byte
	UserID       string
	Name         string // as the user calls it
	PublicKey    []byte // COSE_Key
	SignCount    int64  // zero for ever where the authenticator does not count
	// BackupEligible: it may be copied to other devices of the user, which never
	// changes; BackedUp: it is.
	BackupEligible, BackedUp bool
	Transports               []string
	CreatedAt, LastUsed      time.Time // LastUsed zero: never
}

// AccountEnd is the word of an authority that an account of its is no more.
type AccountEnd struct {
	// EventID is the same for the same event, RememberFor how long it could come
	// again.
	EventID     Digest
	RememberFor time.Duration
	// Authority and Subject are those of ExternalUser; no Authority: Subject is the
	// user id.
	Authority, Subject string
	// Deleted: what is known of the user is removed too, but the id and that they
	// may not sign in.
	Deleted bool
	Source  string // for the audit trail
}

// User is one row of gpt_users.
type User struct {
	ID           string // `sub` in tokens
	Email        string
	PasswordHash string // PHC string, argon2id
	Disabled     bool
	CreatedAt    time.Time
}
