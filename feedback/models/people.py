"""Users, projects, memberships and API tokens."""

import uuid

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

MAX_AHEAD = 20  # comparisons that a page may fetch ahead
MAX_FLAGS = 12  # of one project: as many letters are free on the ranking page
MAX_LIMIT = 1_000_000  # rankings
MAX_NAMES = 20  # groups of one member, tags or groups of one routing rule


def check_distinct_names(names: list[str]) -> None:
    """Raise ValidationError if a name occurs twice or contains a comma, which separates names on the settings page."""
    if len({name.strip().casefold() for name in names}) < len(names):
        raise ValidationError(_("A name is in the list twice: list each name once."))
    if any("," in name for name in names):
        raise ValidationError(_("A name must not contain a comma, which separates the names."))


class User(AbstractUser):
    """A person, or a program that signs in as one.

    An empty language is that of the browser, an empty time zone that of the installation.

    An imported person is the pseudonymous author of imported rankings. It is no member of any project and cannot sign
    in.
    """

    is_imported = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="Author of imported rankings, who cannot sign in."
    )

    language = models.CharField(max_length=10, blank=True, db_default="", default="")
    time_zone = models.CharField(max_length=64, blank=True, db_default="", default="")

    class Meta(AbstractUser.Meta):
        constraints = [
            models.CheckConstraint(
                condition=Q(is_imported=False) | Q(is_active=False), name="imported_person_cannot_sign_in"
            )
        ]


class Project(models.Model):
    """One model that is being improved, with its guidelines, settings and members."""

    slug = models.SlugField(
        _("Address"),
        unique=True,
        help_text=_("Letters, digits and hyphens. It is a part of all links and cannot be changed later."),
        error_messages={"unique": _("Another project has this address already: choose a different one.")},
    )
    name = models.CharField(_("Name"), max_length=200)
    guidelines = models.TextField(
        _("Guidelines"),
        blank=True,
        help_text=_(
            "Markdown, shown to annotators: what makes one completion better than another, with examples and reasons."
        ),
    )
    wanted_rankings = models.PositiveSmallIntegerField(
        _("Rankings per comparison"),
        default=1,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text=_(
            "How many annotators rank each new comparison. Two or more on a part of the comparisons show how far they "
            "agree."
        ),
    )
    lease_minutes = models.PositiveSmallIntegerField(
        _("Lease, in minutes"),
        default=30,
        validators=[MinValueValidator(1), MaxValueValidator(1440)],
        help_text=_("How long an annotator holds a comparison before it goes to the next annotator."),
    )
    comparisons_ahead = models.PositiveSmallIntegerField(
        _("Comparisons fetched ahead"),
        default=3,
        validators=[MinValueValidator(1), MaxValueValidator(MAX_AHEAD)],
        help_text=_(
            "How many comparisons the ranking page fetches in advance. They can be ranked without a connection."
        ),
    )
    held_out_percent = models.PositiveSmallIntegerField(
        _("Held-out prompts, in percent"),
        default=20,
        validators=[MaxValueValidator(90)],
        help_text=_(
            "Share of new prompts that no round trains on. Figures are measured on them. A hash of the prompt decides."
        ),
    )
    strength_points = models.PositiveSmallIntegerField(
        _("Strength of preference"),
        default=0,
        choices=[(0, _("Not asked")), (4, _("4 points")), (9, _("9 points"))],
        help_text=_("For comparisons of two: the scale on which annotators say how much better the better one is."),
    )
    one_key_pairs = models.BooleanField(
        _("One key ranks a pair"),
        default=False,
        help_text=_(
            "For comparisons of two: 1 (A is better), 2 (B is better) or 3 (equally good) submits at once. U undoes it."
        ),
    )
    flags = ArrayField(
        models.CharField(max_length=50),
        verbose_name=_("Flags: not for training"),
        default=list,
        blank=True,
        size=12,
        validators=[check_distinct_names],
        help_text=_(
            'Labels that annotators may put on a comparison, besides "All bad" and "All good". Rounds do not learn '
            "from rankings that have one, and exports leave these rankings out unless asked. A flag that is removed "
            "from every list keeps this meaning."
        ),
    )
    information_flags = ArrayField(
        models.CharField(max_length=50),
        verbose_name=_("Flags: information"),
        default=list,
        blank=True,
        size=12,
        validators=[check_distinct_names],
        help_text=_("Flags that change nothing: rounds learn from these rankings, and exports name the flag."),
    )
    review_flags = ArrayField(
        models.CharField(max_length=50),
        verbose_name=_("Flags: review"),
        default=list,
        blank=True,
        size=12,
        validators=[check_distinct_names],
        help_text=_(
            "Flags with which a comparison enters the reviewers' list. Rounds learn from the ranking unless a reviewer "
            "takes it out."
        ),
    )
    anchors = models.BooleanField(
        _("Learn from All bad and All good"),
        default=False,
        help_text=_(
            "The reward model learns one score for the project that separates good completions from bad ones: with "
            '"All bad" every completion of the comparison belongs below it, with "All good" above it.'
        ),
    )
    attributes = ArrayField(
        models.CharField(max_length=50),
        verbose_name=_("Ratings"),
        default=list,
        blank=True,
        size=6,
        validators=[check_distinct_names],
        help_text=_(
            "Attributes that annotators rate for each completion, from 1 (worst) to 5 (best). For example: helpful, "
            "honest, harmless."
        ),
    )
    gold_percent = models.PositiveSmallIntegerField(
        _("Gold, in percent"),
        default=0,
        validators=[MaxValueValidator(50)],
        help_text=_(
            "Share of gold comparisons in everybody's work. Their right ranking is known, so they show who ranks with "
            "care."
        ),
    )
    qualification_items = models.PositiveSmallIntegerField(
        _("Gold before real work"),
        default=0,
        validators=[MaxValueValidator(100)],
        help_text=_("How many gold comparisons a new annotator ranks before real work; 0: none."),
    )
    qualification_percent = models.PositiveSmallIntegerField(
        _("Needed to qualify, in percent"),
        default=80,
        validators=[MaxValueValidator(100)],
        help_text=_(
            "Share of the gold preferences that a new annotator's rankings must match to qualify for real work."
        ),
    )
    extra_rankings = models.PositiveSmallIntegerField(
        _("Extra rankings"),
        default=0,
        validators=[MaxValueValidator(10)],
        help_text=_("How many more annotators are asked, one after the other, while a comparison has no majority."),
    )
    pauses_careless = models.BooleanField(
        _("Pause annotators whose answers to gold look like chance"),
        default=False,
        db_default=False,
        help_text=_(
            "They get no more comparisons until a manager lets them go on (People). Whoever shares as many gold "
            "preferences as are needed to qualify is ever paused with a chance of at most 1 in 100, over all their "
            "work. Who ranks at random is paused after about 20 gold comparisons."
        ),
    )
    annotators_see_quality = models.BooleanField(
        _("Annotators see their agreement and gold pass rate"),
        default=False,
        help_text=_(
            "Shown on My figures. Both are counted over full batches of 50 of an annotator's rankings and appear the "
            "day after a batch is full. So an annotator cannot find out which comparisons of a batch were gold, only "
            "how many."
        ),
    )
    daily_limit = models.PositiveIntegerField(
        _("Rankings per person and day"),
        default=0,
        db_default=0,
        validators=[MaxValueValidator(MAX_LIMIT)],
        help_text=_("After that many the person gets no more until midnight; 0: no limit."),
    )
    total_limit = models.PositiveIntegerField(
        _("Rankings per person"),
        default=0,
        db_default=0,
        validators=[MaxValueValidator(MAX_LIMIT)],
        help_text=_("In total, over all days; 0: no limit."),
    )
    share_limit = models.PositiveSmallIntegerField(
        _("Share of the work per person, in percent"),
        default=0,
        db_default=0,
        validators=[MaxValueValidator(100)],
        help_text=_(
            "Of all rankings that the project's comparisons want, those already made included; 0: no limit. One member "
            "can have other limits (People, Groups and routing)."
        ),
    )
    sampling_rule = models.CharField(
        _("Order of new comparisons"),
        max_length=30,
        default="random",
        help_text=_("The rule that chooses which new comparison an annotator gets."),
    )
    ranking_weights = models.CharField(
        _("Weight of a ranking"),
        max_length=11,
        choices=[("equal", _("All count the same")), ("reliability", _("By the annotator's reliability"))],
        default="equal",
        help_text=_(
            "Used in exports and by the reward model. By reliability, rankings count less if their annotator often "
            "contradicts others. This limits careless rankings, but also the influence of a minority's taste."
        ),
    )
    blinding_key = models.UUIDField(
        default=uuid.uuid4,
        db_default=RandomUUID(),
        editable=False,
        help_text="Secret key of orders, numbers and draws that annotators must not predict. See blinding.py.",
    )
    trial_percent = models.PositiveSmallIntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="Share of the open trial in everybody's work, 0 without one; here so that the queue needs no query.",
    )
    routed_tags = ArrayField(
        models.CharField(max_length=100),
        default=list,
        blank=True,
        editable=False,
        help_text="Tags that routing rules name; here so that the queue needs no query.",
    )
    webhook_events = ArrayField(
        models.CharField(max_length=40),
        default=list,
        db_default=[],
        editable=False,
        help_text="The events that a webhook wants; here so that events nobody wants cost no query.",
    )
    archived_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    members: models.ManyToManyField = models.ManyToManyField(User, through="Membership", related_name="projects")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(wanted_rankings__gte=1), name="project_wants_a_ranking"),
            models.CheckConstraint(condition=Q(lease_minutes__gte=1), name="project_lease_lasts"),
            models.CheckConstraint(
                condition=Q(comparisons_ahead__gte=1, comparisons_ahead__lte=MAX_AHEAD),
                name="project_comparisons_ahead",
            ),
            models.CheckConstraint(condition=Q(held_out_percent__lte=90), name="project_keeps_prompts_to_train_on"),
            models.CheckConstraint(condition=Q(strength_points__in=[0, 4, 9]), name="project_strength_points"),
            models.CheckConstraint(
                condition=Q(flags__len__lte=12, information_flags__len__lte=12, review_flags__len__lte=12),
                name="project_flags",
            ),
            models.CheckConstraint(
                condition=~Q(flags__overlap=F("information_flags"))
                & ~Q(flags__overlap=F("review_flags"))
                & ~Q(information_flags__overlap=F("review_flags")),
                name="project_flag_has_one_meaning",
            ),
            models.CheckConstraint(condition=Q(attributes__len__lte=6), name="project_attributes"),
            models.CheckConstraint(condition=Q(gold_percent__lte=50), name="project_is_not_all_gold"),
            models.CheckConstraint(condition=Q(qualification_percent__lte=100), name="project_qualification_percent"),
            models.CheckConstraint(condition=Q(trial_percent__lte=100), name="project_trial_percent"),
            models.CheckConstraint(
                condition=Q(daily_limit__lte=MAX_LIMIT, total_limit__lte=MAX_LIMIT, share_limit__lte=100),
                name="project_limits",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Raise ValidationError for a flag with two meanings, or more flags than the page has keys for."""
        lists = {name: getattr(self, name) or [] for name in ("flags", "information_flags", "review_flags")}
        names: set[str] = set()
        for field, flags in lists.items():
            if twice := next((flag for flag in flags if flag.strip().casefold() in names), None):
                message = _('The flag "%(name)s" is in two lists: a flag has one meaning.')
                raise ValidationError({field: message % {"name": twice}})
            names |= {flag.strip().casefold() for flag in flags}
        if len(names) > MAX_FLAGS:
            message = _("There are %(count)s flags in all, more than the maximum of %(most)s.")
            raise ValidationError({"flags": message % {"count": len(names), "most": MAX_FLAGS}})


class Membership(models.Model):
    """A user's role in a project. Reviewers may do all that annotators may, managers may do everything."""

    class Role(models.TextChoices):
        ANNOTATOR = "annotator", _("Annotator")
        REVIEWER = "reviewer", _("Reviewer")
        MANAGER = "manager", _("Manager")

    project = models.ForeignKey(Project, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.ANNOTATOR)
    qualified_at = models.DateTimeField(null=True, blank=True, help_text="When the member passed the gold comparisons.")
    joined_at = models.DateTimeField(auto_now_add=True)
    gold_given_before = models.BigIntegerField(
        null=True, editable=False, help_text="Id of the real comparison before which gold was last offered."
    )
    gold_given = models.PositiveSmallIntegerField(
        default=0, db_default=0, editable=False, help_text="Number of gold comparisons offered before that one."
    )
    groups = ArrayField(
        models.CharField(max_length=50),
        default=list,
        blank=True,
        size=MAX_NAMES,
        help_text="Groups or skills that routing rules name.",
    )
    barred_tags = ArrayField(
        models.CharField(max_length=100),
        default=list,
        blank=True,
        editable=False,
        help_text="Tags of prompts that the routing rules keep from this member. A trigger computes them.",
    )
    daily_limit = models.PositiveIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(MAX_LIMIT)], help_text="Null: the project's. 0: no limit."
    )
    total_limit = models.PositiveIntegerField(
        null=True, blank=True, validators=[MaxValueValidator(MAX_LIMIT)], help_text="Null: the project's. 0: no limit."
    )
    share_limit = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        validators=[MaxValueValidator(100)],
        help_text="In percent. Null: the project's. 0: no limit.",
    )
    paused_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Null: not paused.")
    gold_bets = models.FloatField(
        default=0.0, db_default=0.0, editable=False, help_text="Bets on guessing that have begun: see guessing.py."
    )
    gold_answers = models.PositiveIntegerField(
        default=0, db_default=0, editable=False, help_text="First answers to gold that the bets are about."
    )
    gold_right = models.PositiveIntegerField(default=0, db_default=0, editable=False, help_text="Right ones of these.")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(groups__len__lte=MAX_NAMES), name="membership_groups"),
            models.CheckConstraint(
                condition=(Q(daily_limit__isnull=True) | Q(daily_limit__lte=MAX_LIMIT))
                & (Q(total_limit__isnull=True) | Q(total_limit__lte=MAX_LIMIT))
                & (Q(share_limit__isnull=True) | Q(share_limit__lte=100)),
                name="membership_limits",
            ),
            models.UniqueConstraint(fields=["project", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=["annotator", "reviewer", "manager"]), name="membership_role"),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"

    @property
    def is_manager(self) -> bool:
        return self.role == self.Role.MANAGER

    @property
    def may_review(self) -> bool:
        return self.role in (self.Role.REVIEWER, self.Role.MANAGER)


class Pause(models.Model):
    """A time in which a member gets no comparisons, and its cause."""

    project = models.ForeignKey(Project, models.CASCADE, related_name="pauses")
    user = models.ForeignKey(User, models.CASCADE, related_name="pauses")
    made_by = models.ForeignKey(
        User, models.SET_NULL, null=True, related_name="+", help_text="Null: the test of answers to gold."
    )
    gold_answers = models.PositiveIntegerField(null=True, help_text="Answers to gold that looked like chance.")
    gold_right = models.PositiveIntegerField(null=True, help_text="Right ones of these.")
    began_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    ended_by = models.ForeignKey(User, models.SET_NULL, null=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["project", "user"], condition=Q(ended_at__isnull=True), name="one_pause_at_a_time"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user} since {self.began_at}"


class RoutingRule(models.Model):
    """A rule: prompts with one of these tags go only to members of one of these groups.

    A prompt that several rules name goes to those who meet all of them. Names are compared as they are written.
    """

    project = models.ForeignKey(Project, models.CASCADE, related_name="routing_rules")
    tags = ArrayField(models.CharField(max_length=100), size=MAX_NAMES)
    groups = ArrayField(models.CharField(max_length=50), size=MAX_NAMES)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(tags__len__gte=1, tags__len__lte=MAX_NAMES, groups__len__gte=1, groups__len__lte=MAX_NAMES),
                name="routing_rule_names",
            )
        ]

    def __str__(self) -> str:
        return f"{', '.join(self.tags)} → {', '.join(self.groups)}"
