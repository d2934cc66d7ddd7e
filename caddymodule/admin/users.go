package admin

import (
	"context"
	"time"

	"github.com/caddy-scope/caddy-scope/postgres"
)

// User is a user as an operator sees it.
type User struct {
	ID         string     `json:"user_id"`
	Email      string     `json:"email,omitempty"`
	Name       string     `json:"name,omitempty"`
	Password   bool       `json:"password"` // they have one here
	CreatedAt  time.Time  `json:"created_at"`
	DisabledAt *time.Time `json:"disabled_at,omitempty"`
}

// Users lists the users, by id.
func (a *Admin) Users(ctx context.Context, paging Paging) (Page[User], error) {
	return pageByName(ctx, paging, a.Store.ListUsers, func(r postgres.UserRecord) (string, User) { return r.ID, User(r) })
}
